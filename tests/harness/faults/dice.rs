//! `SplitMix64`: the dice of the fault suites, so that a seed gives the same run again. Pure.

/// Dice of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// From `range.0` to `range.1`, both included.
    pub fn throw(&mut self, (from, to): (u64, u64)) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (z ^ (z >> 31)) % (to - from + 1)
    }

    /// Whether one of so many faces came up.
    pub fn one_in(&mut self, faces: u64) -> bool {
        self.throw((1, faces)) == 1
    }
}
