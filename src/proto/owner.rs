//! Which shard a token belongs to.

use crate::token::TokenKey;

/// The shard, below `shards`, that owns a token: jump consistent hash (Lamping and Veach, 2014). When shards are added,
/// tokens move to the new ones alone; a token's key is a cryptographic hash, so they spread evenly whatever clients pick.
///
/// With no shards there is no answer; it is 0, as for one.
#[must_use]
pub fn owner(key: TokenKey, shards: u16) -> u16 {
    let mut state = key.0 as u64;
    let mut owner = 0;
    loop {
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let jump = (1u64 << 31) as f64 / ((state >> 33) + 1) as f64;
        // At most 2^16 * 2^31: exact enough in 53 bits, and in range of the integer.
        let next = ((u64::from(owner) + 1) as f64 * jump) as u64;
        match u16::try_from(next) {
            Ok(next) if next < shards => owner = next,
            _ => return owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{TokenHash, token_text};

    fn keys() -> impl Iterator<Item = TokenKey> {
        (0..20_000u128).map(|n| TokenHash::of(&token_text(n.to_be_bytes())).key())
    }

    #[test]
    fn tokens_spread_evenly_over_the_shards() {
        for shards in [1, 2, 3, 7, 16] {
            let mut counts = vec![0u32; usize::from(shards)];
            keys().for_each(|key| counts[usize::from(owner(key, shards))] += 1);
            let even = 20_000.0 / f64::from(shards);
            // Five standard deviations of a binomial count: chance does not fail this.
            let slack = 5.0 * even.sqrt();
            assert!(counts.iter().all(|&count| (f64::from(count) - even).abs() <= slack), "{shards}: {counts:?}");
        }
    }

    #[test]
    fn a_new_shard_takes_its_share_and_nothing_else_moves() {
        for shards in [1, 2, 5, 12] {
            let mut moved = 0;
            for key in keys() {
                let (before, after) = (owner(key, shards), owner(key, shards + 1));
                if before != after {
                    assert_eq!(after, shards);
                    moved += 1;
                }
            }
            let share = 20_000 / (i32::from(shards) + 1);
            assert!((moved - share).abs() < share / 5, "{shards}: {moved} moved, {share} expected");
        }
    }

    #[test]
    fn the_largest_counts_stay_in_range() {
        for key in [0, 1, u128::from(u64::MAX), u128::MAX] {
            assert_eq!(owner(TokenKey(key), 0), 0);
            assert_eq!(owner(TokenKey(key), 1), 0);
            assert!(owner(TokenKey(key), u16::MAX) < u16::MAX);
        }
    }

    /// Another machine, and another version, has to find the same owner: these are the published algorithm's values.
    #[test]
    fn the_answers_are_those_of_the_published_algorithm() {
        let reference = |mut key: u64, buckets: i64| {
            let (mut b, mut j) = (-1i64, 0i64);
            while j < buckets {
                b = j;
                key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
                j = ((b + 1) as f64 * ((1i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
            }
            b as u16
        };
        for key in keys().take(2000) {
            for shards in [1, 2, 3, 64, 1000] {
                assert_eq!(owner(key, shards), reference(key.0 as u64, i64::from(shards)));
            }
        }
    }
}
