//! Amounts of money, counted in whole numbers: a sum of many fractions must not drift.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Billionths in a dollar. The cheapest token costs some hundredth of a millionth.
const NANOS: f64 = 1e9;

/// US dollars, exact to a billionth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(u64);

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many billionths of a dollar.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// So many dollars; `None` for what is less than nothing, no number or beyond counting.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let nanos = (dollars * NANOS).round();
        // A double is exact up to 2^53, and nobody has eighteen billion dollars a day to spend.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked on the left")]
        (0.0..1.8e19).contains(&nanos).then_some(Self(nanos as u64))
    }

    /// In billionths of a dollar.
    pub fn nanos(self) -> u64 {
        self.0
    }

    /// In dollars, for JSON and people.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANOS
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without the other; nothing where that is more.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// The most tokens that a request can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Of its prompt.
    pub input: u64,
    /// Of all its answers together.
    pub output: u64,
    /// Whether the prompt may be written to the provider's cache.
    pub writes_cache: bool,
}

impl fmt::Display for Usd {
    /// Cents where it is as much as that, else as many places as it takes to see something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = self.dollars();
        let text = match self.0 {
            0 => "$0".to_owned(),
            1_000_000_000.. => format!("${dollars:.2}"),
            1_000_000.. => format!("${dollars:.4}"),
            _ => format!("${}", format!("{dollars:.9}").trim_end_matches('0')),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_and_shown() {
        for (dollars, nanos, shown) in [
            (0.0, 0, "$0"),
            (0.1, 100_000_000, "$0.1000"),
            (0.000_037_5, 37_500, "$0.0000375"),
            (12.5, 12_500_000_000, "$12.50"),
        ] {
            let read = Usd::from_dollars(dollars).unwrap();
            assert_eq!((read.nanos(), read.to_string().as_str()), (nanos, shown));
            assert_eq!(read.dollars(), dollars);
        }
        for wrong in [-0.1, f64::NAN, f64::INFINITY, 1e11] {
            assert_eq!(Usd::from_dollars(wrong), None, "{wrong}");
        }
    }
}
