//! Renamed configuration keys. A configuration with an old key gets an error that names the new one.

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

/// The new name of the key `path`, if it was renamed. Without a section, `path` matches the last part of a key.
pub fn renamed(path: &str) -> Option<&'static str> {
    let is = |old: &str| old == path || !path.contains('.') && old.rsplit('.').next() == Some(path);
    RENAMED.iter().find(|(old, _)| is(old)).map(|(_, new)| *new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_is_found_by_its_path_or_its_last_part() {
        assert_eq!(renamed("env.history"), Some("env.frame_stack"));
        assert_eq!(renamed("warp"), Some("env.resize"));
        assert_eq!(renamed("env.frame_stack"), None);
        assert_eq!(renamed("a3c.target_rate"), None);
    }
}
