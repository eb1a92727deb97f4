//! What goes to the store and comes back from it: servers as changes, figures as sums.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Housekeeping, lock, wall_ms};
use crate::{
    registry::{self, Change, Now, Registry},
    stats::{Bucket, Hour, Stats, hour},
    store::{Loaded, Shelf, read_record, record},
};

/// The version of the records of servers.
const VERSION: u8 = 1;
/// How long figures may wait before they go to the store: one write for many requests.
const FIGURES_EVERY: Duration = Duration::from_millis(500);
/// How often long lost servers are looked for; they are forgotten after weeks.
const TIDY_EVERY: Duration = Duration::from_secs(3600);
/// How long a person waits for the disk. One that sleeps wakes up within this time.
pub(super) const DISK: Duration = Duration::from_secs(5);
/// Hours are kept apart for a week, then folded into days.
const HOURS_APART: Hour = 7 * 24;
/// After so many hours figures are forgotten.
const HOURS_KEPT: Hour = 400 * 24;

/// Figures, and which of them the store does not have yet.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) stats: Stats,
    pub(super) touched: BTreeSet<Bucket>,
    folded: Hour,
}

impl Figures {
    pub(super) fn new(stats: Stats) -> Self {
        Self { stats, ..Self::default() }
    }
}

/// Registry and figures as they were stored. A record that cannot be read is left out and said.
pub fn restore(stored: &Loaded, settings: registry::Settings, now: Now) -> (Registry, Stats) {
    let mut registry = Registry::new(settings);
    for (key, bytes) in &stored.servers {
        match read_record::<Change>(VERSION, bytes) {
            Some(change) => registry.apply(change, now),
            None => tracing::warn!(key = %String::from_utf8_lossy(key), "a stored server cannot be read"),
        }
    }
    let mut stats = Stats::default();
    let mut unread = 0;
    for (key, bytes) in &stored.rollups {
        if Bucket::from_key(key).and_then(|bucket| stats.load(bucket, bytes)).is_err() {
            unread += 1;
        }
    }
    if unread > 0 {
        tracing::warn!(unread, "some stored figures cannot be read");
    }
    (registry, stats)
}

impl Housekeeping {
    /// Stores what a change left.
    pub(super) fn keep(&self, change: &Change) {
        let id = match change {
            Change::Server { server } => &server.id,
            Change::Forgotten { id, .. } => id,
        };
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

    fn save_figures(&self) {
        let now = hour(wall_ms());
        let mut figures = lock(&self.figures);
        if figures.folded != now {
            figures.folded = now;
            let mut moved = figures.stats.fold_days_before(now.saturating_sub(HOURS_APART));
            moved.extend(figures.stats.forget_before(now.saturating_sub(HOURS_KEPT)));
            figures.touched.extend(moved);
        }
        for bucket in std::mem::take(&mut figures.touched) {
            match figures.stats.bytes(&bucket) {
                Some(bytes) => self.store.put(Shelf::Rollups, &bucket.to_key(), bytes),
                None => self.store.delete(Shelf::Rollups, &bucket.to_key()),
            }
        }
    }
}
