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

use arc_swap::ArcSwapOption;

use super::{DISK, Housekeeping, lock, wall_ms};
use crate::{
    generate::{Cost, Most, Usage, Usd},
    registry::Server,
    spending::{Booking, Day, Denied, Ledger, Price, Prices},
    store::{Records, Shelf, Store, read_record, record},
};

/// The version of the records of days.
const VERSION: u8 = 1;

/// What the person says of spending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spending {
    /// What models cost.
    pub prices: Prices,
    /// The most that a day may cost.
    pub daily: Option<Usd>,
}

/// What the person says of spending, and what was spent.
pub(super) struct Purse {
    /// `None` while the cloud is not enabled.
    prices: ArcSwapOption<Prices>,
    ledger: Mutex<Ledger>,
    /// What the store had, until the cloud is enabled: without it nothing of it is so much as read.
    unread: Mutex<Option<Stored>>,
}

/// What the store had of days.
pub enum Stored {
    /// All of it.
    Days(Records),
    /// It is lost.
    Lost,
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
    /// A purse that is closed, with what the store had.
    pub(super) fn new(stored: Stored) -> Self {
        Self { prices: ArcSwapOption::empty(), ledger: Mutex::default(), unread: Mutex::new(Some(stored)) }
    }

    /// Opens or closes it, as the person says.
    pub(super) fn set(&self, spending: Option<Spending>) {
        let Some(Spending { prices, daily }) = spending else { return self.prices.store(None) };
        let unread = lock(&self.unread).take();
        // The limit first, and what counts against it: who sees the prices may spend.
        let mut ledger = lock(&self.ledger);
        if let Some(stored) = unread {
            *ledger = stored.ledger();
        }
        ledger.set_limit(daily);
        self.prices.store(Some(Arc::new(prices)));
    }

    fn is_open(&self) -> bool {
        self.prices.load().is_some()
    }
}

impl Stored {
    fn ledger(self) -> Ledger {
        let day = |(key, bytes): &(Vec<u8>, Vec<u8>)| {
            let day = Day(u32::from_be_bytes(key.as_slice().try_into().ok()?));
            Some((day, read_record::<Usd>(VERSION, bytes)?))
        };
        let days = match &self {
            Self::Days(records) => records.iter().map(day).collect::<Option<BTreeMap<_, _>>>(),
            Self::Lost => None,
        };
        match days {
            Some(days) => Ledger::new(None, days),
            None => {
                tracing::error!(
                    "what was spent in the cloud today is lost; nothing more is bought until tomorrow"
                );
                Ledger::lost(None, Day::of(wall_ms()))
            }
        }
    }
}

impl Housekeeping {
    /// Whether the cloud is enabled.
    pub fn cloud_is_open(&self) -> bool {
        self.purse.is_open()
    }

    /// What is spent, where the cloud is enabled.
    pub fn spent(&self) -> Option<Spent> {
        let ledger = lock(&self.purse.ledger);
        let day = ledger.day(Day::of(wall_ms()));
        self.purse.is_open().then(|| Spent { today: ledger.counted(day), daily: ledger.limit() })
    }

    /// Whether there is a limit for each day, so that every cost must be known before.
    pub fn is_limited(&self) -> bool {
        lock(&self.purse.ledger).limit().is_some()
    }

    /// What a model in the cloud costs, if anybody said so.
    pub fn price(&self, server: &Server, model: &str) -> Option<Price> {
        self.purse.prices.load().as_ref()?.of(server, model)
    }

    /// Whether a request may be paid for now, or why not.
    pub fn may_buy(
        &self,
        server: &Server,
        model: &str,
        most: impl FnOnce() -> Result<Most, String>,
    ) -> Result<(), String> {
        if !self.purse.is_open() {
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
        // It may be another configuration than the one under which the server was chosen.
        let mut ledger = lock(&self.purse.ledger);
        let prices = self.purse.prices.load();
        let prices = prices.as_ref().ok_or(Denied::Closed)?;
        let Some(price) = prices.of(server, model) else {
            return if ledger.limit().is_some() { Err(Denied::Unpriced) } else { Ok(None) };
        };
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
