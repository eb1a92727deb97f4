//! How busy the machine was, over many requests.

use super::bytes::{Damaged, Reader, put};
use crate::generate::{Load, MEASURES, Reading};

/// Sums over loads; of each measure by itself, for not every system shows all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads([Level; MEASURES]);

/// One measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Level {
    /// Of how many requests it is known.
    count: u64,
    /// What it was when each began, added up.
    starts: u64,
    /// The most that it was during any.
    peak: u64,
}

impl Level {
    fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.starts = self.starts.saturating_add(other.starts);
        self.peak = self.peak.max(other.peak);
    }
}

impl Loads {
    /// Counts one.
    pub(super) fn add(&mut self, load: &Load) {
        let each = load.start.parts().into_iter().zip(load.peak.parts());
        for (level, known) in self.0.iter_mut().zip(each) {
            if let (Some(starts), Some(peak)) = known {
                level.merge(Level { count: 1, starts, peak });
            }
        }
    }

    /// Adds those of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(level, other)| level.merge(other));
    }

    /// The mean of what there was when requests began, and the most during any.
    pub(super) fn whole(&self) -> Load {
        let known = |of: fn(&Level) -> u64| {
            Reading::from_parts(self.0.each_ref().map(|it| (it.count > 0).then(|| of(it))))
        };
        Load { start: known(|it| (it.starts + it.count / 2) / it.count), peak: known(|it| it.peak) }
    }

    pub(super) fn put(&self, to: &mut Vec<u8>) {
        for Level { count, starts, peak } in self.0 {
            [count, starts, peak].into_iter().for_each(|it| put(to, it));
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut loads = Self::default();
        for level in &mut loads.0 {
            *level = Level { count: from.number()?, starts: from.number()?, peak: from.number()? };
        }
        Ok(loads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_that_only_some_requests_know_is_averaged_over_those() {
        let mut loads = Loads::default();
        let reading = |processor, gpu| Reading { processor: Some(processor), gpu, ..Reading::default() };
        loads.add(&Load { start: reading(100, None), peak: reading(900, None) });
        loads.add(&Load { start: reading(301, Some(40)), peak: reading(400, Some(990)) });
        let whole = loads.whole();
        assert_eq!(whole, Load { start: reading(201, Some(40)), peak: reading(900, Some(990)) });
        assert_eq!(Loads::default().whole().known(), None);
    }
}
