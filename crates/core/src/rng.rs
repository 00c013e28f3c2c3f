//! Random streams: each derives from the seed of the run and a name, and can be saved.

use rand::SeedableRng;

/// The generator of every random stream: small, fast, and its state can be saved exactly.
pub type Rng = rand_xoshiro::Xoshiro256PlusPlus;

/// The seed of stream `index` of those called `name`, in a run with seed `seed`.
///
/// Seed, name and index are hashed (FNV-1a, then the finalizer of SplitMix64), so that consecutive seeds and indices give
/// independent streams.
pub fn derive(seed: u64, name: &str, index: u64) -> u64 {
    let words = [seed.to_le_bytes(), index.to_le_bytes()];
    let bytes = words.iter().flatten().copied().chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let z = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The seeds of streams 0 to `n − 1` called `name`.
pub fn seeds(seed: u64, name: &str, n: usize) -> Vec<u64> {
    (0..n as u64).map(|i| derive(seed, name, i)).collect()
}

/// The generator of the stream `name` of a run with seed `seed`.
pub fn stream(seed: u64, name: &str) -> Rng {
    Rng::seed_from_u64(derive(seed, name, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_seeds_differ() {
        let all: HashSet<u64> =
            (0..50).flat_map(|seed| ["env", "actions"].map(|name| seeds(seed, name, 50)).concat()).collect();
        assert_eq!(all.len(), 50 * 2 * 50);
    }

    #[test]
    fn a_saved_generator_continues_its_stream() {
        use rand::Rng as _;
        let mut a = stream(3, "x");
        a.next_u64();
        let saved = serde_json::to_string(&a).unwrap();
        let mut b: Rng = serde_json::from_str(&saved).unwrap();
        assert_eq!((a.next_u64(), a.next_u64()), (b.next_u64(), b.next_u64()));
    }

    /// The hash and its finalizer, computed with Python's integers: a seed keeps its meaning from version to version.
    #[test]
    fn seeds_keep_their_values() {
        let derived = [derive(0, "", 0), derive(7, "env", 2), derive(1 << 40, "actions", 3)];
        assert_eq!(derived, [0x6875_2350_ae1d_483f, 0x5156_e26c_68cb_26d8, 0xeab3_9308_2ec5_d486]);
    }
}
