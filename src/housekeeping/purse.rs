//! What may be spent in the cloud, kept across restarts.
//!
//! Nothing is sent before the most that it can cost is booked and that booking is on the disk:
//! the one place where a request waits for it. A booking is a guard. Dropped before anything
//! was sent it is taken back; dropped after that it stays counted, unless it was settled with
//! what the provider says that it used. A day whose number is lost, and a disk that fails, mean
//! that nothing more is bought.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{DISK, Housekeeping, lock, wall_ms};
use crate::{
    generate::{Cost, Most, Usage, Usd},
    registry::Server,
    spending::{Booking, Day, Denied, Ledger, Price, Prices},
    store::{Records, Shelf, Store, read_record, record},
};

/// The version of the records of days.
const VERSION: u8 = 1;

/// What the person says of spending, and what was spent.
pub struct Purse {
    open: bool,
    prices: Prices,
    ledger: Mutex<Ledger>,
}

/// What is spent, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// What counts today: settled, and what running requests can cost at the most.
    pub today: Usd,
    /// The limit of a day.
    pub daily: Option<Usd>,
}

impl Purse {
    /// A purse that is never opened.
    pub fn closed() -> Self {
        Self { open: false, prices: Prices::default(), ledger: Mutex::default() }
    }

    /// With what the store had; `None` where that was lost.
    pub fn open(prices: Prices, daily: Option<Usd>, stored: Option<&Records>) -> Self {
        let days = |records: &Records| {
            let day = |(key, bytes): &(Vec<u8>, Vec<u8>)| {
                let day = Day(u32::from_be_bytes(key.as_slice().try_into().ok()?));
                Some((day, read_record::<Usd>(VERSION, bytes)?))
            };
            records.iter().map(day).collect::<Option<BTreeMap<_, _>>>()
        };
        let ledger = match stored.and_then(days) {
            Some(days) => Ledger::new(daily, days),
            None => {
                tracing::error!(
                    "what was spent in the cloud today is lost; nothing more is bought until tomorrow"
                );
                Ledger::lost(daily, Day::of(wall_ms()))
            }
        };
        Self { open: true, prices, ledger: Mutex::new(ledger) }
    }
}

impl Housekeeping {
    /// Whether the cloud is enabled.
    pub fn cloud_is_open(&self) -> bool {
        self.purse.open
    }

    /// What is spent, where the cloud is enabled.
    pub fn spent(&self) -> Option<Spent> {
        let ledger = lock(&self.purse.ledger);
        let day = ledger.day(Day::of(wall_ms()));
        self.purse.open.then(|| Spent { today: ledger.counted(day), daily: ledger.limit() })
    }

    /// Whether there is a limit for each day, so that every cost must be known before.
    pub fn is_limited(&self) -> bool {
        lock(&self.purse.ledger).limit().is_some()
    }

    /// What a model in the cloud costs, if anybody said so.
    pub fn price(&self, server: &Server, model: &str) -> Option<Price> {
        self.purse.prices.of(server, model)
    }

    /// Whether a request may be paid for now, or why not.
    pub fn may_buy(
        &self,
        server: &Server,
        model: &str,
        most: impl FnOnce() -> Result<Most, String>,
    ) -> Result<(), String> {
        if !self.purse.open {
            return Err("is in the cloud, which is not enabled".to_owned());
        }
        if !self.store.is_ok() {
            return Err("is in the cloud, and nothing can be written down of what that costs".to_owned());
        }
        let price = self.price(server, model);
        match (price, self.is_limited()) {
            (None, false) => Ok(()),
            (None, true) => Err(format!(
                "is in the cloud, and nobody said what `{model}` costs ([cloud] prices), as there is a daily limit"
            )),
            (Some(_), false) => Ok(()),
            (Some(price), true) => {
                let ledger = |cost| lock(&self.purse.ledger).allows(Day::of(wall_ms()), cost);
                ledger(price.most(most()?)).map_err(|denied| denied.to_string())
            }
        }
    }

    /// Books the most that a request can cost. `None` where it costs nothing that is known.
    pub fn book(
        self: &Arc<Self>,
        server: &Server,
        model: &str,
        most: Most,
    ) -> Result<Option<Arc<Bought>>, Denied> {
        let Some(price) = self.price(server, model) else { return Ok(None) };
        let mut ledger = lock(&self.purse.ledger);
        let booking = ledger.book(Day::of(wall_ms()), price.most(most))?;
        // Under the lock, so that the last note is the last number.
        self.note_day(&ledger, booking.day());
        drop(ledger);
        let (is_sent, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Some(Arc::new(Bought { house: self.clone(), price, booking, is_sent, is_over })))
    }

    fn note_day(&self, ledger: &Ledger, day: Day) {
        match record(VERSION, &ledger.counted(day)) {
            Ok(record) => self.store.put(Shelf::Spending, &day.0.to_be_bytes(), record),
            Err(error) => tracing::error!(%error, "what is spent cannot be written down"),
        }
    }
}

/// One request that costs money.
pub struct Bought {
    house: Arc<Housekeeping>,
    price: Price,
    booking: Booking,
    is_sent: AtomicBool,
    is_over: AtomicBool,
}

impl Bought {
    /// Waits until the booking is on the disk. False means that it must not be sent.
    pub async fn is_kept(&self) -> bool {
        let store: &Store = &self.house.store;
        let kept = matches!(tokio::time::timeout(DISK, store.flush()).await, Ok(true));
        if kept {
            self.is_sent.store(true, Ordering::Relaxed);
        }
        kept
    }

    /// The provider has said what was used.
    pub fn settle(&self, usage: Usage) -> Option<Cost> {
        let usd = self.price.cost(usage)?;
        self.end(usd);
        Some(Cost { usd, at_most: false })
    }

    /// The provider has refused, which it does not bill.
    pub fn take_back(&self) {
        self.end(Usd::ZERO);
    }

    /// What counts while nobody knows more; `None` while nothing was sent.
    pub fn at_most(&self) -> Option<Cost> {
        self.is_sent.load(Ordering::Relaxed).then(|| Cost { usd: self.booking.most(), at_most: true })
    }

    fn end(&self, cost: Usd) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut ledger = lock(&self.house.purse.ledger);
        ledger.settle(&self.booking, cost);
        self.house.note_day(&ledger, self.booking.day());
    }
}

impl Drop for Bought {
    fn drop(&mut self) {
        if !self.is_sent.load(Ordering::Relaxed) {
            self.end(Usd::ZERO);
        }
    }
}
