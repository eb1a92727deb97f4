//! How long the pieces of an answer let themselves be waited for.
//!
//! A histogram small enough to be kept with every single answer: four bins for each doubling
//! from a quarter of a millisecond on, of which an answer has some ten in use. The middle of a
//! bin is within 10 % of every value in it. Two of them merge like any sums.

use std::time::Duration;

/// Pauses between pieces of an answer that had content.
///
/// A server that sends several tokens in one piece, or a translation that holds some back, has
/// fewer of them than tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Bins in use with their counts, in the order of their values.
    bins: Vec<(u8, u32)>,
    /// All of them together, in microseconds.
    sum: u64,
}

/// Bins of one doubling.
const PER_DOUBLING: u64 = 4;
/// What is shorter is told apart from nothing by nobody; in microseconds.
const SHORTEST: u64 = 256;
/// The last bin has all that is longer: four minutes, after which every server was left.
const LAST: u8 = 80;

impl Gaps {
    /// Counts one pause.
    pub fn add(&mut self, gap: Duration) {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        self.sum = self.sum.saturating_add(micros);
        self.put(bin(micros), 1);
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

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The mean in microseconds, which is exact.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// About the pause that at least this share of all do not exceed, in microseconds.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        self.bins.iter().find_map(|(bin, count)| {
            passed += u64::from(*count);
            (passed >= rank).then(|| middle(*bin))
        })
    }

    /// What it is made of, to be kept: bins with their counts, and the sum in microseconds.
    pub fn parts(&self) -> (&[(u8, u32)], u64) {
        (&self.bins, self.sum)
    }

    /// The same again; `None` where that cannot have been one.
    pub fn from_parts(bins: Vec<(u8, u32)>, sum: u64) -> Option<Self> {
        let rises = bins.is_sorted_by(|one, next| one.0 < next.0);
        (rises && bins.iter().all(|(bin, count)| *bin <= LAST && *count > 0)).then_some(Self { bins, sum })
    }

    fn put(&mut self, bin: u8, count: u32) {
        match self.bins.binary_search_by_key(&bin, |it| it.0) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }
}

/// The lowest value of a bin, in microseconds.
fn lowest(bin: u8) -> u64 {
    match u64::from(bin).checked_sub(1) {
        None => 0,
        Some(bin) => {
            let (doubling, quarter) = (bin / PER_DOUBLING, bin % PER_DOUBLING);
            (SHORTEST << doubling) + quarter * ((SHORTEST << doubling) / PER_DOUBLING)
        }
    }
}

fn bin(micros: u64) -> u8 {
    if micros < SHORTEST {
        return 0;
    }
    let doubling = u64::from((micros / SHORTEST).ilog2());
    let quarter = (micros - (SHORTEST << doubling)) / ((SHORTEST << doubling) / PER_DOUBLING);
    u8::try_from(1 + doubling * PER_DOUBLING + quarter).unwrap_or(LAST).min(LAST)
}

fn middle(bin: u8) -> f64 {
    (lowest(bin) + lowest(bin.saturating_add(1))) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(micros: &[u64]) -> Gaps {
        let mut gaps = Gaps::default();
        micros.iter().for_each(|it| gaps.add(Duration::from_micros(*it)));
        gaps
    }

    #[test]
    fn every_bin_begins_where_it_says() {
        for it in 0..=LAST {
            assert_eq!(bin(lowest(it)), it);
            assert!(it == 0 || bin(lowest(it) - 1) == it - 1);
        }
        assert_eq!(bin(u64::MAX), LAST);
        assert_eq!((of(&[]).mean(), of(&[]).quantile(0.5)), (None, None));
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_an_eighth_of_the_exact_one(
            mut micros in vec(300_u64..60_000_000, 1..100),
            share in 0.0..1.0_f64,
        ) {
            let shown = of(&micros).quantile(share).unwrap();
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let exact = micros[rank - 1] as f64;
            prop_assert!((shown - exact).abs() <= exact / 8.0, "{shown}, exactly {exact}");
        }

        #[test]
        fn halves_merged_are_the_whole_and_come_back(left in vec(any::<u64>(), 0..50), right in vec(0_u64..10_000, 0..50)) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&[right, left].concat()));
            let (bins, sum) = merged.parts();
            prop_assert_eq!(Gaps::from_parts(bins.to_vec(), sum), Some(merged.clone()));
        }
    }
}
