//! A histogram that costs what it holds.
//!
//! Log-linear, as HdrHistogram is: the smallest values are kept exactly, above that each
//! doubling has 2^`FINE` bins. Only bins that are in use are kept: HdrHistogram's array takes
//! 16 KiB for an hour in microseconds before the first value, and we keep several histograms
//! for every hour, server and model, and one for every answer.

use std::time::Duration;

/// How often values occurred, and their sum. With 5 for `FINE` the middle of a bin is within
/// 1.6 % of every value in it, with 2 within an eighth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<const FINE: u32> {
    /// Bins in use with their counts, in the order of their values.
    bins: Vec<(u16, u32)>,
    sum: u64,
}

/// Pauses between pieces of an answer that had content, in microseconds: coarse enough to be
/// kept with every single answer, of which most have some ten bins in use.
///
/// A server that sends several tokens in one piece, or a translation that holds some back, has
/// fewer of them than tokens.
pub type Gaps = Histogram<2>;

impl<const FINE: u32> Histogram<FINE> {
    /// Bins of one doubling.
    const PER_DOUBLING: u64 = 1 << FINE;
    /// All bins that a `u64` can fall into.
    const BINS: u64 = Self::PER_DOUBLING * (u64::BITS - FINE + 1) as u64;

    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.sum = self.sum.saturating_add(value);
        self.put(Self::bin(value), 1);
    }

    /// Counts a time, in microseconds.
    pub fn add_time(&mut self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        for (bin, count) in &other.bins {
            self.put(*bin, *count);
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
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
            (passed >= rank).then(|| Self::middle(*bin))
        })
    }

    /// What it is made of, to be kept: bins with their counts, and the sum of all values.
    pub fn parts(&self) -> (&[(u16, u32)], u64) {
        (&self.bins, self.sum)
    }

    /// The same again; `None` where that cannot have been one.
    pub fn from_parts(bins: Vec<(u16, u32)>, sum: u64) -> Option<Self> {
        let rises = bins.is_sorted_by(|one, next| one.0 < next.0);
        let is_one = |(bin, count): &(u16, u32)| u64::from(*bin) < Self::BINS && *count > 0;
        (rises && bins.iter().all(is_one)).then_some(Self { bins, sum })
    }

    fn put(&mut self, bin: u16, count: u32) {
        match self.bins.binary_search_by_key(&bin, |it| it.0) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    fn bin(value: u64) -> u16 {
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(FINE + 1);
        (u64::from(shift) * Self::PER_DOUBLING + (value >> shift)) as u16
    }

    fn middle(bin: u16) -> f64 {
        let bin = u64::from(bin);
        let shift = (bin / Self::PER_DOUBLING).saturating_sub(1);
        let lowest = (bin - shift * Self::PER_DOUBLING) << shift;
        let width = 1_u64 << shift;
        lowest as f64 + (width - 1) as f64 / 2.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    type Fine = Histogram<5>;

    fn of<const FINE: u32>(values: &[u64]) -> Histogram<FINE> {
        let mut histogram = Histogram::default();
        values.iter().for_each(|it| histogram.add(*it));
        histogram
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        vec(prop_oneof![0_u64..100, 0_u64..100_000_000, any::<u64>()], 1..200)
    }

    #[test]
    fn nothing_has_neither_mean_nor_median() {
        assert_eq!((of::<5>(&[]).mean(), of::<5>(&[]).quantile(0.5)), (None, None));
        assert_eq!((of::<2>(&[]).mean(), of::<2>(&[]).quantile(0.5)), (None, None));
    }

    #[test]
    fn small_values_are_exact() {
        for value in 0..64 {
            assert_eq!(of::<5>(&[value]).quantile(0.5), Some(value as f64));
        }
    }

    #[test]
    fn every_value_has_a_bin_of_its_own_size() {
        assert_eq!(u64::from(Fine::bin(u64::MAX)), Fine::BINS - 1);
        assert_eq!(u64::from(Gaps::bin(u64::MAX)), Gaps::BINS - 1);
        for bits in 6..64 {
            let edge = 1_u64 << bits;
            assert_eq!(Fine::bin(edge - 1) + 1, Fine::bin(edge), "at {edge}");
            assert_eq!(Gaps::bin(edge - 1) + 1, Gaps::bin(edge), "at {edge}");
        }
    }

    /// How far a quantile is from the exact one, and that.
    fn off<const FINE: u32>(mut values: Vec<u64>, share: f64) -> (f64, f64) {
        let shown = of::<FINE>(&values).quantile(share).unwrap();
        values.sort_unstable();
        let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
        let exact = values[rank - 1] as f64;
        ((shown - exact).abs(), exact)
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_two_percent_of_the_exact_one(values in values(), share in 0.0..1.0_f64) {
            let (off, exact) = off::<5>(values, share);
            prop_assert!(off <= exact * 0.02, "off by {off}, exactly {exact}");
        }

        #[test]
        fn that_of_pauses_is_within_an_eighth(
            micros in vec(300_u64..60_000_000, 1..100),
            share in 0.0..1.0_f64,
        ) {
            let (off, exact) = off::<2>(micros, share);
            prop_assert!(off <= exact / 8.0, "off by {off}, exactly {exact}");
        }

        #[test]
        fn two_halves_merged_are_the_whole_and_come_back(left in values(), right in values()) {
            let mut merged: Gaps = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&[right, left].concat()));
            let (bins, sum) = merged.parts();
            prop_assert_eq!(Gaps::from_parts(bins.to_vec(), sum), Some(merged.clone()));
        }
    }
}
