//! A histogram that costs what it holds.
//!
//! Log-linear, as HdrHistogram is: values below 64 are kept exactly, above that
//! each doubling has 32 bins, so the middle of a bin is within 1.6 % of every
//! value in it. Only bins that are in use are kept: HdrHistogram's array takes
//! 16 KiB for an hour in microseconds before the first value, and we keep three
//! histograms for every hour, server and model.

use super::bytes::{Damaged, Reader, put};

/// How often values occurred, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Bins in use with their counts, in the order of their values.
    bins: Vec<(u16, u32)>,
    sum: u64,
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.sum = self.sum.saturating_add(value);
        self.put(bin(value), 1);
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        for (bin, count) in &other.bins {
            self.put(*bin, *count);
        }
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The mean, which is exact.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// The smallest value that at least this share of all values does not exceed.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        self.nth(((self.count() as f64 * share).ceil() as u64).max(1))
    }

    /// The value at a rank, the smallest being the first.
    pub fn nth(&self, rank: u64) -> Option<f64> {
        let mut passed = 0;
        self.bins.iter().find_map(|(bin, count)| {
            passed += u64::from(*count);
            (passed >= rank).then(|| middle(*bin))
        })
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        put(to, self.sum);
        put(to, self.bins.len() as u64);
        let mut last = 0;
        for (bin, count) in &self.bins {
            put(to, u64::from(bin - last));
            put(to, u64::from(*count));
            last = *bin;
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut histogram = Self { bins: Vec::new(), sum: from.number()? };
        let mut last = 0_u64;
        for _ in 0..from.number()? {
            last = last.checked_add(from.number()?).filter(|it| *it < BINS).ok_or(Damaged)?;
            let count = u32::try_from(from.number()?).map_err(|_| Damaged)?;
            histogram.put(last as u16, count);
        }
        Ok(histogram)
    }

    fn put(&mut self, bin: u16, count: u32) {
        match self.bins.binary_search_by_key(&bin, |it| it.0) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }
}

/// Bins of one doubling.
const PER_DOUBLING: u64 = 32;

/// All bins that a `u64` can fall into.
const BINS: u64 = PER_DOUBLING * 60;

fn bin(value: u64) -> u16 {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(6);
    (u64::from(shift) * PER_DOUBLING + (value >> shift)) as u16
}

fn middle(bin: u16) -> f64 {
    let bin = u64::from(bin);
    let shift = (bin / PER_DOUBLING).saturating_sub(1);
    let lowest = (bin - shift * PER_DOUBLING) << shift;
    let width = 1_u64 << shift;
    lowest as f64 + (width - 1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|it| histogram.add(*it));
        histogram
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        vec(prop_oneof![0_u64..100, 0_u64..100_000_000, any::<u64>()], 1..200)
    }

    #[test]
    fn nothing_has_neither_mean_nor_median() {
        assert_eq!((of(&[]).mean(), of(&[]).quantile(0.5)), (None, None));
    }

    #[test]
    fn small_values_are_exact() {
        for value in 0..64 {
            assert_eq!(of(&[value]).quantile(0.5), Some(value as f64));
        }
    }

    #[test]
    fn every_value_has_a_bin_of_its_own_size() {
        assert_eq!(u64::from(bin(u64::MAX)), BINS - 1);
        for bits in 6..64 {
            let edge = 1_u64 << bits;
            assert_eq!(bin(edge - 1) + 1, bin(edge), "at {edge}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_two_percent_of_the_exact_one(mut values in values(), share in 0.0..1.0_f64) {
            let shown = of(&values).quantile(share).unwrap();
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            prop_assert!((shown - exact).abs() <= exact * 0.02, "{shown}, exactly {exact}");
        }

        #[test]
        fn two_halves_merged_are_the_whole(left in values(), right in values()) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&[right, left].concat()));
        }
    }
}
