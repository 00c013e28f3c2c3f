//! Suggestions for misspelled names.

use std::path::Path;

/// The candidate most similar to `word`, if the similarity is more than 0.5. Ids of environments are also compared without their
/// namespace and version, so `pong` matches `ALE/Pong-v5`.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let similarity = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let whole = strsim::normalized_damerau_levenshtein(&word, &candidate);
        whole.max(strsim::normalized_damerau_levenshtein(stem(&word), stem(&candidate)) - 0.01)
    };
    let scored = candidates.into_iter().map(|c| (similarity(c), c));
    // The first among equals: registries list the more likely candidates first.
    let best = scored.reduce(|a, b| if b.0 > a.0 { b } else { a });
    best.filter(|(similarity, _)| *similarity > 0.5).map(|(_, candidate)| candidate)
}

/// `; did you mean 'x'?`, or an empty string.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, candidates).map(|c| format!("; did you mean '{c}'?")).unwrap_or_default()
}

/// The hint for a file or folder that does not exist: the most similar name in the same folder that `is_candidate`.
pub fn neighbor(path: &Path, is_candidate: impl Fn(&Path) -> bool) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let entries = path.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let candidates = entries.map(|entry| entry.path()).filter(|path| is_candidate(path));
    let names: Vec<String> = candidates.map(|path| name(&path)).collect();
    hint(&name(path), names.iter().map(String::as_str))
}

/// An environment's id without namespace or module, and version.
pub fn stem(id: &str) -> &str {
    let name = id.rsplit(['/', ':']).next().unwrap_or(id);
    match name.rsplit_once("-v") {
        Some((stem, version)) if version.bytes().all(|b| b.is_ascii_digit()) => stem,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn the_closest_candidate_is_found() {
        let ids = ["CartPole", "Catch", "ALE/Pong-v5", "ALE/Pooyan-v5", "CartPole-v1"];
        for (word, expected) in [
            ("Cartpoel", Some("CartPole")),
            ("pong", Some("ALE/Pong-v5")),
            ("ALE/Pnog-v5", Some("ALE/Pong-v5")),
            ("PongNoFrameskip-v4", None),
            ("xyzzy", None),
        ] {
            assert_eq!(closest(word, ids), expected, "{word}");
        }
        assert_eq!(closest("learning_rat", ["gamma", "learning_rate"]), Some("learning_rate"));
    }
}
