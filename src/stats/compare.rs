//! Whether two servers, or two models, differ by more than luck.
//!
//! A rate has Wilson's interval. Times have no shape that one could rely on, so of them the
//! medians are compared, whose interval follows from ranks alone. How far two sides are apart
//! is put together from both intervals (Newcombe's way, which others call MOVER): for rates as
//! a difference, for times as a ratio. All intervals are of 95 %. With few values nothing is
//! said: an interval that holds nearly everything is read as "no difference" too easily.
//!
//! What is compared is what happened. If one side got the longer prompts it was slower for that.

use super::{Histogram, Sums};

/// So many values each side has to have.
const ENOUGH: u64 = 10;
/// The quantile of the normal distribution that leaves 2.5 % on each side.
const Z: f64 = 1.959_964;
/// Values in one bin of a histogram differ by that share at the most.
const BIN: f64 = 1.0 / 32.0;

/// A value, and between what it lies with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The value.
    pub value: f64,
    /// Not less than that.
    pub low: f64,
    /// Not more than that.
    pub high: f64,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// How many values there are.
    pub count: u64,
    /// What they say, where they are enough.
    pub interval: Option<Interval>,
}

/// One measure of both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// What is measured.
    pub measure: Measure,
    /// The first side.
    pub a: Side,
    /// The second side.
    pub b: Side,
    /// The first less the second, where a rate is measured; else the first in terms of the second.
    pub apart: Option<Interval>,
    /// Whether the first (`true`) or the second is better beyond doubt.
    pub a_is_better: Option<bool>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The share of successes.
    SuccessRate,
    /// The median of the time to the first content, in milliseconds.
    FirstToken,
    /// The median of the time of whole answers, in milliseconds.
    Total,
    /// The median of the tokens per second.
    Speed,
}

impl Measure {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::FirstToken => "first_token_ms",
            Self::Total => "total_ms",
            Self::Speed => "tokens_per_second",
        }
    }

    fn more_is_better(self) -> bool {
        match self {
            Self::SuccessRate | Self::Speed => true,
            Self::FirstToken | Self::Total => false,
        }
    }
}

/// Two sides by all measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How many requests or attempts the first side had.
    pub a: u64,
    /// How many the second had.
    pub b: u64,
    /// Measure by measure.
    pub measures: Vec<Measured>,
}

/// Compares two sums.
pub fn compare(a: &Sums, b: &Sums) -> Comparison {
    let rate = |sums: &Sums| {
        let (successes, counted) = sums.successes();
        Side { count: counted, interval: wilson(successes, counted) }
    };
    let time = |measure, of: fn(&Sums) -> &Histogram, unit: f64| {
        let side = |sums: &Sums| Side { count: of(sums).count(), interval: median(of(sums), unit) };
        Measured::new(measure, side(a), side(b))
    };
    Comparison {
        a: a.endings.all(),
        b: b.endings.all(),
        measures: vec![
            Measured::new(Measure::SuccessRate, rate(a), rate(b)),
            time(Measure::FirstToken, |it| &it.first_token, 1000.0),
            time(Measure::Total, |it| &it.total, 1000.0),
            time(Measure::Speed, |it| &it.speed, 100.0),
        ],
    }
}

impl Measured {
    fn new(measure: Measure, a: Side, b: Side) -> Self {
        let apart = a.interval.zip(b.interval).map(|(a, b)| match measure {
            Measure::SuccessRate => difference(a, b),
            Measure::FirstToken | Measure::Total | Measure::Speed => ratio(a, b),
        });
        let same = if measure == Measure::SuccessRate { 0.0 } else { 1.0 };
        let a_is_better = apart.filter(|it| it.low > same || it.high < same);
        let a_is_better = a_is_better.map(|it| (it.value > same) == measure.more_is_better());
        Self { measure, a, b, apart, a_is_better }
    }
}

/// Wilson's score interval of a share.
fn wilson(successes: u64, of: u64) -> Option<Interval> {
    if of < ENOUGH {
        return None;
    }
    let (n, share) = (of as f64, successes as f64 / of as f64);
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    // At the ends it is exact, and a rounding error must not say otherwise.
    let low = if successes == 0 { 0.0 } else { (middle - half) / whole };
    let high = if successes == of { 1.0 } else { (middle + half) / whole };
    Some(Interval { value: share, low, high })
}

/// The median, between the values whose ranks hold it whatever the distribution.
fn median(values: &Histogram, unit: f64) -> Option<Interval> {
    let count = values.count();
    if count < ENOUGH {
        return None;
    }
    let n = count as f64;
    let half = Z * n.sqrt() / 2.0;
    let rank = |it: f64| values.nth((it.max(1.0) as u64).min(count)).map(|it| it / unit);
    let (low, high) = (rank((n / 2.0 - half).floor())?, rank((n / 2.0 + half).ceil() + 1.0)?);
    let value = values.quantile(0.5)? / unit;
    // What is known of a value is its bin.
    Some(Interval { value, low: low * (1.0 - BIN / 2.0), high: high * (1.0 + BIN / 2.0) })
}

/// The first less the second.
fn difference(a: Interval, b: Interval) -> Interval {
    let value = a.value - b.value;
    let below = (a.value - a.low).hypot(b.high - b.value);
    let above = (a.high - a.value).hypot(b.value - b.low);
    Interval { value, low: value - below, high: value + above }
}

/// The first in terms of the second.
fn ratio(a: Interval, b: Interval) -> Interval {
    // What took no time that a clock could see is taken for the least that it can.
    let log = |it: f64| it.max(1e-3).ln();
    let logs = |it: Interval| Interval { value: log(it.value), low: log(it.low), high: log(it.high) };
    let apart = difference(logs(a), logs(b));
    Interval { value: apart.value.exp(), low: apart.low.exp(), high: apart.high.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Endings;

    fn sums(successes: u64, failures: u64, times: impl Iterator<Item = u64>) -> Sums {
        let mut sums = Sums {
            endings: Endings { delivered: successes, exhausted: failures, ..Endings::default() },
            ..Sums::default()
        };
        times.for_each(|it| sums.first_token.add(it));
        sums
    }

    fn find(it: &Comparison, measure: Measure) -> Measured {
        *it.measures.iter().find(|it| it.measure == measure).unwrap()
    }

    #[test]
    fn wilsons_interval_is_that_of_the_books() {
        let near =
            |it: Interval, low: f64, high: f64| (it.low - low).abs() < 5e-4 && (it.high - high).abs() < 5e-4;
        assert!(near(wilson(81, 263).unwrap(), 0.2553, 0.3662));
        assert!(near(wilson(0, 20).unwrap(), 0.0, 0.1611));
        assert!(near(wilson(29, 29).unwrap(), 0.8830, 1.0));
        assert_eq!(wilson(9, 9), None);
    }

    /// Newcombe's own example: 56 of 70 against 48 of 80.
    #[test]
    fn the_difference_of_two_rates_is_that_of_the_books() {
        let it = difference(wilson(56, 70).unwrap(), wilson(48, 80).unwrap());
        assert!(
            (it.value - 0.2).abs() < 1e-9
                && (it.low - 0.0524).abs() < 5e-4
                && (it.high - 0.3339).abs() < 5e-4,
            "{it:?}"
        );
    }

    #[test]
    fn the_better_one_is_named_only_beyond_doubt() {
        let a = sums(95, 5, (0..100).map(|it| 100_000 + it * 500));
        let b = sums(70, 30, (0..100).map(|it| 200_000 + it * 500));
        let it = compare(&a, &b);
        assert_eq!(find(&it, Measure::SuccessRate).a_is_better, Some(true));
        let first = find(&it, Measure::FirstToken);
        assert_eq!(first.a_is_better, Some(true));
        assert!(first.apart.is_some_and(|it| it.low < 0.56 && it.high > 0.54 && it.high < 0.7), "{first:?}");
        assert_eq!(find(&compare(&b, &a), Measure::FirstToken).a_is_better, Some(false));
        let same = compare(&a, &sums(93, 7, (0..100).map(|it| 101_000 + it * 490)));
        assert_eq!(same.measures.iter().filter_map(|it| it.a_is_better).count(), 0);
    }

    #[test]
    fn with_few_values_nothing_is_said() {
        let it = compare(&sums(9, 0, (0..9).map(|_| 1)), &sums(500, 0, (0..500).map(|_| 1_000_000)));
        for measured in &it.measures {
            assert_eq!((measured.apart, measured.a_is_better), (None, None), "{measured:?}");
        }
        assert_eq!((it.a, it.b), (9, 500));
    }

    /// Of two sides that are alike one is called better no more often than was promised.
    #[test]
    fn what_is_only_luck_is_seldom_called_a_difference() {
        let mut luck = fastrand::Rng::with_seed(1);
        let mut wrong = [0, 0];
        for _ in 0..400 {
            let mut side = || {
                let good = (0..60).filter(|_| luck.f64() < 0.8).count() as u64;
                // As skewed as real times are.
                let times: Vec<u64> =
                    (0..60).map(|_| (100_000.0 * (-luck.f64().ln() + 0.2)) as u64).collect();
                sums(good, 60 - good, times.into_iter())
            };
            let it = compare(&side(), &side());
            for (wrong, measure) in wrong.iter_mut().zip([Measure::SuccessRate, Measure::FirstToken]) {
                *wrong += i32::from(find(&it, measure).a_is_better.is_some());
            }
        }
        assert!(wrong.iter().all(|it| *it <= 32), "{wrong:?} of 400");
    }
}
