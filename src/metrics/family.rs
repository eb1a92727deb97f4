//! Families of numbers, as every monitoring system has them.

/// Numbers of one meaning, told apart by labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, in words with dots between them, without its unit.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// In what it is counted.
    pub unit: Unit,
    /// The numbers.
    pub points: Points,
}

/// In what something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Things,
    /// Tokens.
    Tokens,
    /// A share of one.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
    /// Dollars.
    Usd,
}

/// Numbers of a family.
#[derive(Clone, Debug, PartialEq)]
pub enum Points {
    /// They only rise, from the start of the daemon on.
    Sum(Vec<Point<f64>>),
    /// What there is now.
    Gauge(Vec<Point<f64>>),
    /// How values are spread, from the start of the daemon on.
    Histogram(Vec<Point<Buckets>>),
}

/// One number, and of what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<T> {
    /// What tells it from the others.
    pub labels: Labels,
    /// The number.
    pub value: T,
}

/// Names with dots between their words, and values.
pub type Labels = Vec<(&'static str, String)>;

impl Family {
    /// One number that there is now.
    pub fn gauge(name: &'static str, unit: Unit, help: &'static str, value: f64) -> Self {
        Self::gauges(name, unit, help, [(Labels::new(), value)])
    }

    /// Several.
    pub fn gauges(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Self {
        Self { name, help, unit, points: Points::Gauge(points(values)) }
    }

    /// Numbers that only rise.
    pub fn sums(
        name: &'static str,
        unit: Unit,
        help: &'static str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> Self {
        Self { name, help, unit, points: Points::Sum(points(values)) }
    }

    /// Whether there is no number in it.
    pub fn is_empty(&self) -> bool {
        match &self.points {
            Points::Sum(all) | Points::Gauge(all) => all.is_empty(),
            Points::Histogram(all) => all.is_empty(),
        }
    }
}

/// Values with what tells them from each other, as points.
pub(super) fn points<T>(values: impl IntoIterator<Item = (Labels, T)>) -> Vec<Point<T>> {
    values.into_iter().map(|(labels, value)| Point { labels, value }).collect()
}

/// How often values fell between given bounds, and their sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds: above the last one too.
    counts: Vec<u64>,
    sum: f64,
}

impl Buckets {
    /// None yet. The bounds rise.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts a value. One that is a bound belongs below it.
    pub fn add(&mut self, value: f64) {
        let at = self.bounds.partition_point(|it| *it < value);
        self.counts[at] += 1;
        self.sum += value;
    }

    /// The bounds.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// How many fell below each bound and not below the one before it, and above the last.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values added up.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_below_the_first_bound_that_it_does_not_exceed() {
        let mut buckets = Buckets::new(&[1.0, 4.0]);
        [0.5, 1.0, 1.5, 4.0, 4.1, 100.0].into_iter().for_each(|it| buckets.add(it));
        assert_eq!(buckets.counts(), [2, 2, 2]);
        assert_eq!((buckets.count(), buckets.sum()), (6, 111.1));
    }
}
