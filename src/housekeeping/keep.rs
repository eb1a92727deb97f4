//! What goes to the store and comes back from it: servers as changes, figures as sums, and
//! outcomes as rows.
//!
//! Each outcome has a number. Its row goes to the store when it is over, the sums a little
//! later, and with them the number of the last outcome that is in them. Whatever rows the store
//! has beyond that number were not summed when the daemon was killed, and are summed at the
//! next start: so rows and sums always agree, and nothing is counted twice.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    Housekeeping, lock,
    unsent::{SENT, Sent},
    wall_ms,
};
use crate::{
    generate::Outcome,
    ledger,
    metrics::Counted,
    registry::{self, Change, Now, Registry, says_where},
    stats::{Bucket, Hour, Stats, hour},
    store::{Loaded, Row, Shelf, Store, read_record, record},
};

/// The version of the records of servers.
const VERSION: u8 = 1;
/// How long figures may wait before they go to the store: one write for many requests.
/// Half a second is what may be lost, of which a busy machine needs as much again for writing.
const FIGURES_EVERY: Duration = Duration::from_millis(250);
/// How often long lost servers are looked for; they are forgotten after weeks.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How long a person waits for the disk. One that sleeps wakes up within this time.
pub(super) const DISK: Duration = Duration::from_secs(5);
/// Hours are kept apart for a week, then folded into days.
const HOURS_APART: Hour = 7 * 24;
/// After so many hours figures are forgotten: five years, of which a usual one takes half a MiB.
const HOURS_KEPT: Hour = 5 * 366 * 24;
/// Under this key stands beside the sums the number of the last outcome in them. It is shorter
/// than the key of any sum.
const SUMMED: &[u8] = b"sum";
/// Rows are summed in pieces of so many at the start.
const AT_ONCE: usize = 4096;

/// Figures, and which of them the store does not have yet.
#[derive(Debug, Default)]
pub struct Figures {
    pub(super) stats: Stats,
    pub(super) touched: BTreeSet<Bucket>,
    /// The number of the last outcome.
    pub(super) number: u64,
    /// How far outcomes were sent to a shared database.
    pub(super) sent: Sent,
    /// Of this run alone, and whatever is forgotten.
    pub(super) counted: Counted,
    folded: Hour,
}

impl Figures {
    /// Takes over the sums that were stored, and sums the rows that came after them.
    fn restore(store: &Store, stored: &Loaded) -> Self {
        let mut figures = Self::default();
        let mut unread = 0;
        for (key, bytes) in &stored.rollups {
            if key == SUMMED {
                figures.number = <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_be_bytes);
            } else if key == SENT {
                figures.sent = Sent::read(bytes);
            } else if Bucket::from_key(key).and_then(|it| figures.stats.load(it, bytes)).is_err() {
                unread += 1;
            }
        }
        if unread > 0 {
            tracing::warn!(unread, "some stored figures cannot be read");
        }
        if let Err(error) = figures.catch_up(store) {
            tracing::warn!(%error, "what happened last before the stop is not in the statistics");
        }
        figures.fold(hour(wall_ms()));
        figures
    }

    fn catch_up(&mut self, store: &Store) -> Result<(), crate::store::ReadError> {
        let reader = store.reader();
        if reader.last_number()?.is_none_or(|last| last <= self.number) {
            return Ok(());
        }
        let mut walk = reader.walk_from(self.number + 1, u64::MAX)?;
        loop {
            let rows = walk.next_rows(AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            self.number = *last;
            for (_, row) in &rows {
                match ledger::read(row) {
                    Ok(outcome) => self.touched.extend(self.stats.add_past(&outcome)),
                    Err(error) => tracing::warn!(%error, "a stored outcome cannot be read"),
                }
            }
        }
        Ok(())
    }

    /// Folds old hours into days, and forgets old days.
    fn fold(&mut self, now: Hour) {
        if self.folded != now {
            self.folded = now;
            let mut moved = self.stats.fold_days_before(now.saturating_sub(HOURS_APART));
            moved.extend(self.stats.forget_before(now.saturating_sub(HOURS_KEPT)));
            self.touched.extend(moved);
        }
    }
}

/// Registry and figures as they were stored. A record that cannot be read is left out and said.
pub fn restore(
    store: &Store,
    stored: &Loaded,
    settings: registry::Settings,
    now: Now,
) -> (Registry, Figures) {
    let mut registry = Registry::new(settings);
    for (key, bytes) in &stored.servers {
        match read_record::<Change>(VERSION, bytes) {
            Some(change) => registry.apply(change, now),
            None => tracing::warn!(key = %String::from_utf8_lossy(key), "a stored server cannot be read"),
        }
    }
    (registry, Figures::restore(store, stored))
}

impl Housekeeping {
    /// Stores what a change left.
    pub(super) fn keep(&self, change: &Change) {
        let id = match change {
            Change::Server { server } => &server.id,
            Change::Forgotten { id, .. } => id,
        };
        if let Change::Forgotten { id, endpoint, kind } = change
            && says_where(id, endpoint, kind)
        {
            // Of whoever has an address for an hour nothing is left behind.
            self.store.put_all(Shelf::Servers, [(id.as_str().as_bytes().to_vec(), None)]);
            return;
        }
        match record(VERSION, change) {
            Ok(record) => self.store.put(Shelf::Servers, id.as_str().as_bytes(), record),
            Err(error) => tracing::error!(%id, %error, "a server cannot be written down"),
        }
    }

    /// Carries figures to the store, whenever there are any, until dropped.
    pub async fn keep_figures(self: Arc<Self>) {
        loop {
            self.unsaved.notified().await;
            tokio::time::sleep(FIGURES_EVERY).await;
            self.save_figures();
        }
    }

    /// Forgets servers that nobody will miss any more, until dropped.
    pub async fn tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            self.change(|registry, now| registry.tidy(now));
        }
    }

    /// Waits until what was changed is on the disk, so that a person can be told that it
    /// is done; for a disk that hangs nobody is kept waiting.
    pub async fn settled(&self) {
        if tokio::time::timeout(DISK, self.store.flush()).await.is_err() {
            tracing::warn!("the disk takes longer than {} s", DISK.as_secs());
        }
    }

    /// Carries what is left to the store and waits for the disk.
    pub async fn close(&self) {
        self.save_figures();
        self.store.flush().await;
    }

    /// Counts an outcome, and has it written down if that is wanted.
    pub(super) fn count(&self, outcome: &Outcome) -> u64 {
        // Outside the lock; what is not stored is not even written as a row.
        let row = self.tracking().then(|| ledger::row(outcome));
        let mut figures = lock(&self.figures);
        figures.number += 1;
        figures.counted.add(outcome);
        if row.is_none() {
            figures.stats.add_unkept(outcome);
        }
        if let Some(bytes) = row {
            let touched = figures.stats.add(outcome);
            figures.touched.extend(touched);
            // Under the lock, so that rows come in the order of their numbers, and before sums
            // that they are in.
            self.store.append(Row { number: figures.number, hour: hour(outcome.at_ms), bytes });
            self.unsaved.notify_one();
        }
        figures.number
    }

    /// Forgets all figures and outcomes. False where the disk did not do it in time, or at all.
    pub async fn clear_stats(&self) -> bool {
        {
            let mut figures = lock(&self.figures);
            figures.stats.clear();
            figures.touched.clear();
            lock(&self.recent).clear();
            self.store.clear();
            // Numbers go on: whoever reads rows just now must not take new ones for those that he had.
            figures.sent.number = figures.number;
            self.store.put_all(Shelf::Rollups, [summed(figures.number), figures.sent.record()]);
        }
        tokio::time::timeout(DISK, self.store.flush()).await == Ok(true) && self.store.is_ok()
    }

    fn save_figures(&self) {
        let mut figures = lock(&self.figures);
        figures.fold(hour(wall_ms()));
        if figures.touched.is_empty() {
            return;
        }
        let touched = std::mem::take(&mut figures.touched);
        let records = touched.iter().map(|it| (it.to_key(), figures.stats.bytes(it)));
        let kept = self.store.put_all(Shelf::Rollups, records.chain([summed(figures.number)]));
        if !kept {
            figures.touched = touched;
        }
        self.kept.send_replace(figures.number);
    }
}

fn summed(number: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    (SUMMED.to_vec(), Some(number.to_be_bytes().to_vec()))
}
