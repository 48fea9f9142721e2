//! Percentiles and distinct counts in little memory.
//!
//! Comes in: values. Goes out: the value at a rank, ± 1 % of itself (DDSketch, Masson, Rim, Lee, VLDB 2019: the buckets
//! are those of `sketches-ddsketch`, kept sparse here); how many different values there were (exact up to 500, then
//! HyperLogLog of Apache DataSketches, 2¹² registers, standard error 1.6 %).
//! Guarantees: bounded memory; both merge; their bytes depend only on what was added, in which order.
//! On failure: bytes that are no sketch are refused.

use std::sync::LazyLock;

use datasketches::hll::{HllSketch, HllType, HllUnion};
use sketches_ddsketch::Config;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::codec::{Corrupt, Cursor, put_bytes, put_length, put_signed, put_unsigned};
use crate::reading::Value;

/// Most buckets; at 1 % they span 17 decimal orders of magnitude. Beyond, the lowest ones are joined.
const BUCKETS_MAX: usize = 2048;
/// Numbers nearer to zero than this count as zero.
const NEAR_ZERO: f64 = 1e-9;
/// Added to the numbers of the library's buckets (from −1037 on), so that the sign of a bucket is that of its values.
const SHIFT: i32 = 2000;
const REGISTERS_LOG2: u8 = 12;
/// Up to here values are counted exactly: they take less room than the registers, which the library keeps as a plain array
/// (its other forms are written down in an order of chance) from about 390 on.
const FEW_MAX: usize = 500;

static BUCKETS: LazyLock<Config> = LazyLock::new(|| Config::new(0.01, 2048, NEAR_ZERO));

/// How many values fell into which bucket, by ascending value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Quantiles(Vec<(i32, u64)>);

impl Quantiles {
    pub(super) fn add(&mut self, value: f64) {
        let bucket = match value.abs() {
            near if near <= NEAR_ZERO => 0,
            size if value > 0.0 => BUCKETS.key(size) + SHIFT,
            size => -(BUCKETS.key(size) + SHIFT),
        };
        self.add_many(bucket, 1);
    }

    fn add_many(&mut self, bucket: i32, count: u64) {
        match self.0.binary_search_by_key(&bucket, |b| b.0) {
            Ok(i) => self.0[i].1 = self.0[i].1.saturating_add(count),
            Err(i) if self.0.len() < BUCKETS_MAX => self.0.insert(i, (bucket, count)),
            Err(0) => self.0[0].1 = self.0[0].1.saturating_add(count),
            Err(i) => {
                self.0.insert(i, (bucket, count));
                let (_, lowest) = self.0.remove(0);
                self.0[0].1 = self.0[0].1.saturating_add(lowest);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for &(bucket, count) in &other.0 {
            self.add_many(bucket, count);
        }
    }

    /// The value of rank ⌊q·(n−1)⌋, q in thousandths of a percent.
    pub(super) fn at(&self, thousandths: u32) -> Option<f64> {
        let count = self.0.iter().fold(0_u64, |sum, b| sum.saturating_add(b.1));
        let rank = u128::from(count.checked_sub(1)?) * u128::from(thousandths) / 100_000;
        let mut seen = 0_u128;
        let bucket = self.0.iter().find(|b| {
            seen += u128::from(b.1);
            seen > rank
        })?;
        let value = |key: i32| BUCKETS.value(key - SHIFT);
        Some(match bucket.0 {
            0 => 0.0,
            b if b > 0 => value(b),
            b => -value(-b),
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_length(out, self.0.len());
        for &(bucket, count) in &self.0 {
            put_signed(out, i64::from(bucket));
            put_unsigned(out, count);
        }
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let length = cursor.length(2)?;
        if length > BUCKETS_MAX {
            return Err(Corrupt("too many buckets"));
        }
        let mut buckets = Vec::with_capacity(length);
        for _ in 0..length {
            let bucket = i32::try_from(cursor.signed()?).map_err(|_| Corrupt("no bucket"))?;
            if bucket.unsigned_abs() > 100_000 || buckets.last().is_some_and(|&(last, _)| last >= bucket) {
                return Err(Corrupt("buckets in disorder"));
            }
            buckets.push((bucket, cursor.unsigned()?));
        }
        Ok(Self(buckets))
    }
}

/// Which values there were: the hashes of all of them while they are few, then registers.
#[derive(Clone, Debug)]
pub(super) enum Distinct {
    /// Ascending.
    Few(Vec<u64>),
    Many(Box<HllSketch>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Distinct {
    /// `1`, `1.0` and `-0.0`, `0` are the same; `"1"`, `1` and `true` are not.
    pub(super) fn add(&mut self, value: &Value<'_>) {
        let number = |v: f64| {
            let mut bytes = [b'n'; 9];
            bytes[1..].copy_from_slice(&(v + 0.0).to_bits().to_le_bytes());
            xxh3_64(&bytes)
        };
        self.add_hash(match value {
            Value::Bool(v) => xxh3_64(&[b'b', u8::from(*v)]),
            Value::Unsigned(v) => number(*v as f64),
            Value::Signed(v) => number(*v as f64),
            Value::Float(v) => number(*v),
            Value::Text(v) => xxh3_64_with_seed(v.as_bytes(), u64::from(b't')),
        });
    }

    fn add_hash(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                hashes.insert(at, hash);
                if hashes.len() > FEW_MAX {
                    let new = HllSketch::new(REGISTERS_LOG2, HllType::Hll8);
                    let mut sketch = Box::new(new.expect("12 is among the sizes of the library"));
                    hashes.iter().for_each(|hash| sketch.update(hash));
                    *self = Self::Many(sketch);
                }
            }
            Self::Many(sketch) => sketch.update(hash),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Few(hashes)) => hashes.iter().for_each(|&hash| self.add_hash(hash)),
            (Self::Few(hashes), Self::Many(sketch)) => {
                let mut sketch = sketch.clone();
                hashes.iter().for_each(|hash| sketch.update(hash));
                *self = Self::Many(sketch);
            }
            (Self::Many(mine), Self::Many(other)) => {
                let mut union = HllUnion::new(REGISTERS_LOG2).expect("12 is among the sizes of the library");
                union.update(mine);
                union.update(other);
                **mine = union.to_sketch(HllType::Hll8);
            }
        }
    }

    /// Beyond few, by the registers alone: the library's other estimate depends on the order of adding.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Few(hashes) => hashes.len() as u64,
            Self::Many(sketch) => sketch.composite_estimate().round() as u64,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Few(hashes) => {
                put_length(out, hashes.len());
                hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
            }
            Self::Many(sketch) => {
                put_length(out, FEW_MAX + 1);
                put_bytes(out, &sketch.serialize());
            }
        }
    }

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Corrupt> {
        let length = cursor.unsigned()?;
        if length <= FEW_MAX as u64 {
            let hashes = (0..length).map(|_| cursor.bits()).collect::<Result<Vec<_>, _>>()?;
            if !hashes.is_sorted_by(|a, b| a < b) {
                return Err(Corrupt("hashes in disorder"));
            }
            return Ok(Self::Few(hashes));
        }
        let sketch = HllSketch::deserialize(cursor.bytes()?).map_err(|_| Corrupt("no HyperLogLog"))?;
        if sketch.lg_config_k() != REGISTERS_LOG2 || sketch.target_type() != HllType::Hll8 {
            return Err(Corrupt("a HyperLogLog of another size"));
        }
        Ok(Self::Many(Box::new(sketch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(values: impl Iterator<Item = u64>) -> Distinct {
        let mut sketch = Distinct::default();
        values.for_each(|v| sketch.add(&Value::Unsigned(v)));
        sketch
    }

    #[test]
    fn buckets_are_bounded_and_the_upper_ones_stay_right() {
        let mut sketch = Quantiles::default();
        for i in 0..40_000_i32 {
            sketch.add(1.015_f64.powi(i - 20_000));
        }
        assert_eq!(sketch.0.len(), BUCKETS_MAX);
        let p99 = sketch.at(99_000).unwrap() / 1.015_f64.powi(39_599 - 20_000);
        assert!((p99 - 1.0).abs() <= 0.01, "{p99}");
    }

    #[test]
    fn distinct_counts_within_its_error_merged_or_not() {
        for n in [0, 1, 7, 100, 500] {
            assert_eq!(distinct(0..n).count(), n, "few values are counted exactly");
        }
        for n in [600_u64, 5_000, 100_000] {
            let whole = distinct(0..n);
            assert!((whole.count() as f64 / n as f64 - 1.0).abs() < 0.05);
            let mut merged = distinct(0..n / 3);
            merged.merge(&distinct(n / 4..n));
            assert_eq!(merged.count(), whole.count());
        }
    }

    #[test]
    fn sketches_come_back() {
        for n in [0, 3, 50, 495, 501, 520, 20_000] {
            let mut out = Vec::new();
            distinct(0..n).encode(&mut out);
            let mut back = Distinct::decode(&mut Cursor(&out)).unwrap();
            assert_eq!(back.count(), distinct(0..n).count());
            back.merge(&distinct(n..n + 10));
            assert_eq!(back.count(), distinct(0..n + 10).count());
            let mut again = Vec::new();
            Distinct::decode(&mut Cursor(&out)).unwrap().encode(&mut again);
            assert_eq!(out, again);
        }
    }
}
