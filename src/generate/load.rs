//! How busy the machine was while a request ran.

/// How much of the machine was in use at one moment, or over some time. What the system does not
/// show is absent, and never zero.
///
/// Whole numbers, so that what was written down and read again gives the very same sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of all processors, in tenths of a percent.
    pub processor: Option<u64>,
    /// Memory that is taken, in bytes.
    pub memory: Option<u64>,
    /// Of the busiest GPU, in tenths of a percent.
    pub gpu: Option<u64>,
    /// Memory of all GPUs that is taken, in bytes.
    pub gpu_memory: Option<u64>,
    /// Of the hottest GPU, in tenths of a degree Celsius.
    pub temperature: Option<u64>,
    /// What all GPUs draw, in tenths of a watt.
    pub power: Option<u64>,
}

/// How many things a reading is of.
pub const MEASURES: usize = 6;

impl Reading {
    /// What it is made of, in a fixed order.
    pub fn parts(self) -> [Option<u64>; MEASURES] {
        let Self { processor, memory, gpu, gpu_memory, temperature, power } = self;
        [processor, memory, gpu, gpu_memory, temperature, power]
    }

    /// The same again.
    pub fn from_parts(parts: [Option<u64>; MEASURES]) -> Self {
        let [processor, memory, gpu, gpu_memory, temperature, power] = parts;
        Self { processor, memory, gpu, gpu_memory, temperature, power }
    }

    fn with(self, other: Self, pick: impl Fn(u64, u64) -> u64) -> Self {
        let (mine, theirs) = (self.parts(), other.parts());
        let both = |at: usize| match (mine[at], theirs[at]) {
            (Some(mine), Some(theirs)) => Some(pick(mine, theirs)),
            (one, None) | (None, one) => one,
        };
        Self::from_parts(std::array::from_fn(both))
    }
}

/// How busy the machine was while a request ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// When it began: the first that was seen of each.
    pub start: Reading,
    /// The most that was seen of each.
    pub peak: Reading,
}

impl Load {
    /// Takes in what is seen now.
    pub fn see(&mut self, now: Reading) {
        self.start = self.start.with(now, |first, _| first);
        self.peak = self.peak.with(now, u64::max);
    }

    /// Itself, if anything was seen.
    pub fn known(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn reading() -> impl Strategy<Value = Reading> {
        vec(option::of(0_u64..1000), MEASURES)
            .prop_map(|it| Reading::from_parts(std::array::from_fn(|at| it[at])))
    }

    #[test]
    fn nothing_seen_is_not_known() {
        let mut load = Load::default();
        assert_eq!(load.known(), None);
        load.see(Reading::default());
        assert_eq!(load.known(), None);
        load.see(Reading { gpu: Some(0), ..Reading::default() });
        assert_eq!(load.known().map(|it| it.peak.gpu), Some(Some(0)), "zero is something");
    }

    proptest! {
        #[test]
        fn the_start_is_the_first_and_the_peak_the_most_that_was_seen(readings in vec(reading(), 0..6)) {
            let mut load = Load::default();
            readings.iter().for_each(|it| load.see(*it));
            for at in 0..MEASURES {
                let seen: Vec<u64> = readings.iter().filter_map(|it| it.parts()[at]).collect();
                prop_assert_eq!(load.start.parts()[at], seen.first().copied());
                prop_assert_eq!(load.peak.parts()[at], seen.iter().max().copied());
            }
        }
    }
}
