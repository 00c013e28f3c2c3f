//! Old names of configuration keys, and those of other libraries: an error names the key.

/// `(old path, new path)`. A path is a section, a dot and a key.
const RENAMED: &[(&str, &str)] = &[
    ("distributed.delay_gradients", "distributed.overlap_exchange"),
    ("env.history", "env.frame_stack"),
    ("env.warp", "env.resize"),
    ("env.sticky", "env.repeat_action_probability"),
    ("env.threads", "env.num_threads"),
    ("env.vectorisation", "env.vectorization"),
    ("env.normalise_obs", "env.normalize_obs"),
    ("env.normalise_reward", "env.normalize_reward"),
    ("env.normalise_gamma", "env.normalize_gamma"),
    ("network.standardise", "network.standardize"),
    ("paac.t_max", "paac.rollout_steps"),
    ("paac.max_grad_norm", "paac.gradient_clip"),
    ("paac.threads", "paac.num_threads"),
    ("paac.normalise_advantage", "paac.normalize_advantage"),
    ("paac.anneal_steps", "paac.learning_rate.steps"),
    ("paac.learning_rate_floor", "paac.learning_rate.end"),
    ("paac.entropy_floor", "paac.entropy_coefficient = { start, end }"),
    ("paac.optimizer.centred", "paac.optimizer.centered"),
    ("a3c.t_max", "a3c.rollout_steps"),
    ("a3c.max_grad_norm", "a3c.gradient_clip"),
    ("a3c.threads", "a3c.num_threads"),
    ("a3c.target_every_steps", "a3c.target_update_interval"),
    ("a3c.anneal_steps", "a3c.learning_rate.steps"),
    ("a3c.entropy_floor", "a3c.entropy_coefficient = { start, end }"),
    ("a3c.exploration.ends", "a3c.exploration.final_epsilons"),
    ("a3c.optimizer.centred", "a3c.optimizer.centered"),
    ("dqn.replay_capacity", "dqn.buffer_size"),
    ("dqn.replay_compression", "dqn.buffer_compression"),
    ("dqn.update_every_steps", "dqn.train_interval"),
    ("dqn.updates_per_round", "dqn.gradient_steps"),
    ("dqn.target_every_steps", "dqn.target_update_interval"),
    ("dqn.target_rate", "dqn.tau"),
    ("dqn.max_grad_norm", "dqn.gradient_clip"),
    ("dqn.threads", "dqn.num_threads"),
    ("dqn.exploration_start", "dqn.exploration_epsilon.start"),
    ("dqn.exploration_end", "dqn.exploration_epsilon.end"),
    ("dqn.exploration_steps", "dqn.exploration_epsilon.steps"),
    ("dqn.beta_start", "dqn.beta.start"),
    ("dqn.beta_steps", "dqn.beta.steps"),
    ("dqn.optimizer.centred", "dqn.optimizer.centered"),
];

/// `(name, key)`: last parts of keys.
const ELSEWHERE: &[(&str, &str)] = &[
    ("batch_size", "minibatch_size"),
    ("clip_coef", "clip_range"),
    ("ent_coef", "entropy_coefficient"),
    ("lr", "learning_rate"),
    ("max_grad_norm", "gradient_clip"),
    ("n_envs", "num_envs"),
    ("n_epochs", "epochs"),
    ("n_steps", "rollout_steps"),
    ("num_steps", "rollout_steps"),
    ("t_max", "rollout_steps"),
    ("total_timesteps", "steps"),
    ("train_freq", "train_interval"),
    ("update_epochs", "epochs"),
    ("vf_coef", "value_coefficient"),
];

/// What the unknown key `path` is called among the paths `known`, if it is an old name or one of other libraries. Without a section,
/// `path` matches the last part of a name.
pub fn renamed(path: &str, known: &[String]) -> Option<String> {
    let section = |path: &str| path.split_once('.').map_or(String::new(), |(section, _)| format!("{section}."));
    let is_old = |old: &str, new: &str| {
        let has_section = known.iter().any(|known| known.starts_with(&section(new)));
        old == path || has_section && !path.contains('.') && last(old) == path
    };
    let old = RENAMED.iter().find(|(old, new)| is_old(old, new)).map(|(_, new)| new.to_string());
    let elsewhere = || {
        let (_, key) = ELSEWHERE.iter().find(|(name, _)| *name == last(path))?;
        known.iter().find(|known| last(known) == *key && known.starts_with(&section(path))).cloned()
    };
    old.or_else(elsewhere)
}

/// The last part of a path.
pub fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_is_found_by_its_path_or_its_last_part() {
        let known = ["steps", "env.frame_stack", "env.resize", "ppo.gradient_clip", "ppo.rollout_steps"];
        let known = known.map(String::from);
        for (path, expected) in [
            ("env.history", Some("env.frame_stack")),
            ("warp", Some("env.resize")),
            ("env.frame_stack", None),
            ("a3c.target_rate", None),
            // An old name in PAAC, another library's in PPO.
            ("max_grad_norm", Some("ppo.gradient_clip")),
            ("ppo.max_grad_norm", Some("ppo.gradient_clip")),
            ("paac.max_grad_norm", Some("paac.gradient_clip")),
            ("n_steps", Some("ppo.rollout_steps")),
            ("a3c.n_steps", None),
            ("total_timesteps", Some("steps")),
            ("ent_coef", None),
        ] {
            assert_eq!(renamed(path, &known).as_deref(), expected, "{path}");
        }
    }
}
