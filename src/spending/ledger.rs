//! The daily limit.
//!
//! A day is a day of UTC, and a request counts on the day on which it is sent, however long
//! its answer takes. For each day one number is kept: what was settled, and the most that all
//! others can cost. It grows before anything is sent and shrinks when something is settled, so
//! any state of it that was ever written down is no less than what had been sent until then;
//! and what was open when a daemon died stays in it.
//!
//! A clock that goes back gets no second allowance: behind a day that has begun, spending
//! counts on that day. A clock that was weeks ahead by mistake would leave none for weeks;
//! such a day keeps its number for when it comes, and today's goes on where it was.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::generate::Usd;

const MS_OF_A_DAY: u64 = 24 * 60 * 60 * 1000;

/// How far ahead a day is believed to have begun. A time zone taken for another is hours away.
const AHEAD: u32 = 2;

/// A day of UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment, in milliseconds since 1970.
    pub fn of(wall_ms: u64) -> Self {
        Self(u32::try_from(wall_ms / MS_OF_A_DAY).unwrap_or(u32::MAX))
    }
}

/// Why nothing is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It could go beyond the limit.
    Beyond {
        /// The most that it can cost.
        most: Usd,
        /// What is left of the day.
        left: Usd,
        /// The limit.
        limit: Usd,
    },
    /// What was spent on this day was lost with a damaged store.
    Unknown,
    /// Nobody said what it costs, and there is a limit.
    Unpriced,
    /// The cloud is not enabled.
    Closed,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beyond { most, left, limit } => write!(
                f,
                "may cost {most}, and of {limit} for today {left} are left ([cloud] daily_usd); a new day \
                 begins at midnight UTC"
            ),
            Self::Unpriced => f.write_str(
                "is in the cloud, and nobody said what it costs ([cloud] prices), as there is a daily limit",
            ),
            Self::Closed => f.write_str("is in the cloud, which is not enabled"),
            Self::Unknown => f.write_str(
                "costs money, and what was spent today was lost with a damaged store; a new day begins at \
                 midnight UTC",
            ),
        }
    }
}

/// What is booked for one request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not settled stays counted"]
pub struct Booking {
    day: Day,
    most: Usd,
}

impl Booking {
    /// The day that it counts on.
    pub fn day(&self) -> Day {
        self.day
    }

    /// What is counted for it.
    pub fn most(&self) -> Usd {
        self.most
    }
}

/// What was spent, and the limit.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    limit: Option<Usd>,
    days: BTreeMap<Day, Usd>,
    lost: Option<Day>,
}

impl Ledger {
    /// Begins with what was kept of each day.
    pub fn new(limit: Option<Usd>, days: BTreeMap<Day, Usd>) -> Self {
        Self { limit, days, lost: None }
    }

    /// Begins after what was kept was lost, on this day: what was spent on it is not known.
    pub fn lost(limit: Option<Usd>, day: Day) -> Self {
        Self { limit, days: BTreeMap::new(), lost: Some(day) }
    }

    /// Sets another limit. What was spent stays counted.
    pub fn set_limit(&mut self, limit: Option<Usd>) {
        self.limit = limit;
    }

    /// The limit of a day.
    pub fn limit(&self) -> Option<Usd> {
        self.limit
    }

    /// The day on which spending counts.
    pub fn day(&self, today: Day) -> Day {
        let ahead = today..=Day(today.0.saturating_add(AHEAD));
        self.days.range(ahead).next_back().map_or(today, |(day, _)| *day)
    }

    /// What counts on a day: what was spent, and what may still be.
    pub fn counted(&self, day: Day) -> Usd {
        self.days.get(&day).copied().unwrap_or_default()
    }

    /// Whether so much could be booked today.
    pub fn allows(&self, today: Day, most: Usd) -> Result<(), Denied> {
        let Some(limit) = self.limit else { return Ok(()) };
        let day = self.day(today);
        // What costs nothing needs no allowance.
        if most == Usd::ZERO {
            return Ok(());
        }
        if self.lost.is_some_and(|lost| day <= lost) {
            return Err(Denied::Unknown);
        }
        let left = limit.less(self.counted(day));
        if most > left { Err(Denied::Beyond { most, left, limit }) } else { Ok(()) }
    }

    /// Books the most that a request can cost. It may be sent once the day's number is kept.
    pub fn book(&mut self, today: Day, most: Usd) -> Result<Booking, Denied> {
        self.allows(today, most)?;
        let day = self.day(today);
        let counted = self.days.entry(day).or_default();
        *counted = counted.plus(most);
        Ok(Booking { day, most })
    }

    /// Settles a booking with what the request did cost.
    pub fn settle(&mut self, booking: &Booking, cost: Usd) {
        let counted = self.days.entry(booking.day).or_default();
        *counted = counted.less(booking.most).plus(cost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TODAY: Day = Day(20_000);

    fn usd(cents: u64) -> Usd {
        Usd::from_nanos(cents * 10_000_000)
    }

    fn ledger(limit: u64) -> Ledger {
        Ledger::new(Some(usd(limit)), BTreeMap::new())
    }

    #[test]
    fn what_is_booked_counts_until_it_is_settled() {
        let mut ledger = ledger(100);
        let booking = ledger.book(TODAY, usd(60)).unwrap();
        let denied = Denied::Beyond { most: usd(60), left: usd(40), limit: usd(100) };
        assert_eq!(ledger.book(TODAY, usd(60)), Err(denied));
        ledger.settle(&booking, usd(10));
        assert_eq!(ledger.counted(TODAY), usd(10));
        let _ = ledger.book(TODAY, usd(90)).unwrap();
        assert!(ledger.allows(TODAY, Usd::from_nanos(1)).is_err());
        assert_eq!(ledger.allows(TODAY, Usd::ZERO), Ok(()));
    }

    #[test]
    fn a_new_day_begins_at_midnight_and_an_answer_counts_where_it_was_asked() {
        assert_eq!(Day::of(MS_OF_A_DAY - 1), Day(0));
        assert_eq!(Day::of(MS_OF_A_DAY), Day(1));
        let mut ledger = ledger(100);
        let booking = ledger.book(TODAY, usd(100)).unwrap();
        let tomorrow = Day(TODAY.0 + 1);
        let _ = ledger.book(tomorrow, usd(100)).unwrap();
        ledger.settle(&booking, usd(1));
        assert_eq!((ledger.counted(TODAY), ledger.counted(tomorrow)), (usd(1), usd(100)));
    }

    #[test]
    fn a_clock_that_goes_back_gets_no_second_allowance() {
        let mut ledger = ledger(100);
        let _ = ledger.book(TODAY, usd(100)).unwrap();
        assert!(ledger.book(Day(TODAY.0 - 1), usd(1)).is_err());
        assert!(ledger.book(Day(TODAY.0 - 2), usd(1)).is_err());
        // One that was far ahead has spoilt that day and no other.
        let _ = ledger.book(Day(TODAY.0 - 100), usd(100)).unwrap();
        assert!(ledger.book(TODAY, usd(1)).is_err());
    }

    #[test]
    fn after_a_loss_the_day_has_no_allowance_left() {
        let mut ledger = Ledger::lost(Some(usd(100)), TODAY);
        assert_eq!(ledger.book(TODAY, usd(1)), Err(Denied::Unknown));
        assert!(ledger.book(Day(TODAY.0 + 1), usd(1)).is_ok());
        assert!(Ledger::lost(None, TODAY).book(TODAY, usd(1)).is_ok());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Books so much, which will cost this share of it; the disk may be slow.
        Book(u64, u64),
        /// The oldest that is open is settled.
        Settle,
        /// What is waiting goes to the disk.
        Flush,
        /// The daemon dies and begins again with what was on the disk.
        Crash,
        /// The clock goes somewhere.
        Clock(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..60_u64, 0..=100_u64).prop_map(|(most, share)| Step::Book(most, share)),
            3 => Just(Step::Settle),
            2 => Just(Step::Flush),
            1 => Just(Step::Crash),
            1 => (0..4_u32).prop_map(Step::Clock),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        /// A provider bills what was sent, when it was sent, whatever became of us. Nothing is
        /// sent before the number that counts it is on the disk.
        #[test]
        fn no_day_is_ever_billed_more_than_the_limit(steps in prop::collection::vec(step(), 0..80)) {
            let mut ledger = ledger(100);
            let mut disk = BTreeMap::new();
            let mut billed: BTreeMap<Day, Usd> = BTreeMap::new();
            let (mut open, mut today) = (Vec::new(), TODAY);
            for step in steps {
                match step {
                    Step::Book(most, share) => {
                        let Ok(booking) = ledger.book(today, usd(most)) else { continue };
                        disk.clone_from(&ledger.days);
                        let cost = Usd::from_nanos(usd(most).nanos() * share / 100);
                        let bill = billed.entry(booking.day()).or_default();
                        *bill = bill.plus(cost);
                        open.push((booking, cost));
                    }
                    Step::Settle if !open.is_empty() => {
                        let (booking, cost) = open.remove(0);
                        ledger.settle(&booking, cost);
                    }
                    Step::Settle => {}
                    Step::Flush => disk.clone_from(&ledger.days),
                    Step::Crash => {
                        open.clear();
                        ledger = Ledger::new(Some(usd(100)), disk.clone());
                    }
                    Step::Clock(day) => today = Day(TODAY.0 + day),
                }
                for (day, bill) in &billed {
                    prop_assert!(*bill <= usd(100), "{day:?} {bill}");
                    prop_assert!(*bill <= ledger.counted(*day));
                }
            }
        }
    }
}
