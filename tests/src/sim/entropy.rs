//! Where the simulation gets its dice from: one trait, so that a seed or a fuzzer's bytes can drive the same world.
//!
//! Everything random in a simulated run is drawn here and nowhere else; that is what makes a seed replayable.

/// A source of random numbers.
pub trait Entropy {
    /// The next 64 bits.
    fn next_u64(&mut self) -> u64;
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// Numbers from bytes, such as a fuzzer's; zeros once they are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Entropy for Bytes<'_> {
    fn next_u64(&mut self) -> u64 {
        let (now, later) = self.0.split_at(self.0.len().min(8));
        self.0 = later;
        now.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `number`.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Draws of all sorts from one source.
pub struct Dice {
    source: Box<dyn Entropy>,
}

impl Dice {
    /// Dice thrown by `source`.
    #[must_use]
    pub fn new(source: Box<dyn Entropy>) -> Self {
        Self { source }
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let number = self.source.next_u64();
        if n == 0 { 0 } else { number % n }
    }

    /// An index below `n`.
    pub fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number from `low` to `high` whose magnitude is drawn first, so that small ones are as frequent as big ones.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(1));
        let n_doublings = u64::from(high.ilog2() - low.ilog2().min(high.ilog2()));
        let base = low << self.between(0, n_doublings);
        self.between(base, (2 * base).min(high).max(base)).min(high)
    }

    /// One of `choices`; `None` when there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        if choices.is_empty() {
            return None;
        }
        Some(choices[self.index(choices.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_others() {
        let draw = |seed| {
            let mut dice = Dice::new(Box::new(Seeded::new(seed)));
            (0..50).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut dice = Dice::new(Box::new(Seeded::new(3)));
        for _ in 0..10_000 {
            assert!((5..=9).contains(&dice.between(5, 9)));
            assert!((100..=5_000).contains(&dice.magnitude(100, 5_000)));
        }
        assert_eq!(dice.pick::<u8>(&[]), None);
    }

    #[test]
    fn bytes_run_out_into_zeros() {
        let mut bytes = Bytes(&[1, 0, 0, 0, 0, 0, 0, 2, 9]);
        assert_eq!((bytes.next_u64(), bytes.next_u64(), bytes.next_u64()), (0x0100_0000_0000_0002, 9, 0));
    }
}
