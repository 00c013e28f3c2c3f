//! Renamed keys of checkpoints. A checkpoint of format 1 has the old keys; they get their new names when it is read.
//!
//! One field inside a value was renamed, too: `reward` of [`EpisodeEnd`](crate::EpisodeEnd) is an alias of its `episode_return`.

use crate::Snapshot;

/// `(old key, new key)`. An object of which a run has several adds its name before the key ([`Snapshot::nest`]).
const RENAMED: &[(&str, &str)] = &[
    ("player.rng", "actor.rng"),
    ("memory.h", "recurrent_state.h"),
    ("memory.c", "recurrent_state.c"),
    ("replay.lanes", "replay.rings"),
    ("priorities.numbers", "priorities.values"),
];

/// The new name of `key`, if it was renamed.
fn renamed(key: &str) -> Option<String> {
    RENAMED.iter().find_map(|(old, new)| {
        let name = key.strip_suffix(old)?;
        (name.is_empty() || name.ends_with('.')).then(|| format!("{name}{new}"))
    })
}

/// Gives the arrays and values of a snapshot of format 1 their new names.
pub(super) fn rename_keys(snapshot: &mut Snapshot) {
    let rename = |key: String| renamed(&key).unwrap_or(key);
    let (arrays, state) = (std::mem::take(&mut snapshot.arrays), std::mem::take(&mut snapshot.state));
    snapshot.arrays = arrays.into_iter().map(|(key, array)| (rename(key), array)).collect();
    snapshot.state = state.into_iter().map(|(key, value)| (rename(key), value)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_is_renamed_also_below_the_name_of_an_object() {
        for (old, new) in [
            ("player.rng", Some("actor.rng")),
            ("actor_learner.12.memory.c", Some("actor_learner.12.recurrent_state.c")),
            ("multiplayer.rng", None),
            ("player.rng.x", None),
            ("dqn.actor.rng", None),
        ] {
            assert_eq!(renamed(old).as_deref(), new, "{old}");
        }
    }
}
