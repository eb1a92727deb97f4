//! Outcomes that a shared database does not have yet: the rows behind the last one it was sent.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Housekeeping, keep::Figures, lock};
use crate::store::{ReadError, Reader, Shelf, Walk, read_record, record};

/// The version of the record.
const VERSION: u8 = 1;
/// Under this key it stands beside the sums. It is shorter than the key of any sum.
pub(super) const SENT: &[u8] = b"out";

/// How far outcomes were sent, and under which name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// What these rows are called among those of other daemons: luck, and nothing about the
    /// machine. It lives and dies with the numbers of the rows.
    name: String,
    /// The database that this is about.
    to: String,
    /// The number of the last row that it has.
    pub(super) number: u64,
}

impl Default for Sent {
    fn default() -> Self {
        Self { name: format!("{:016x}", fastrand::u64(..)), to: String::new(), number: 0 }
    }
}

impl Sent {
    /// What was stored; where that cannot be read everything is sent again, which changes nothing.
    pub(super) fn read(bytes: &[u8]) -> Self {
        read_record(VERSION, bytes).unwrap_or_default()
    }

    /// As it is stored.
    pub(super) fn record(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (SENT.to_vec(), record(VERSION, self).ok())
    }
}

impl Housekeeping {
    /// The number of the last outcome that went to the store, whenever that changes.
    pub fn kept(&self) -> watch::Receiver<u64> {
        self.kept.subscribe()
    }

    /// What our rows are called among those of others.
    pub fn ledger_name(&self) -> String {
        lock(&self.figures).sent.name.clone()
    }

    /// The number of the last row that a database was sent; 0 for one that was sent none.
    pub fn sent_to(&self, database: &str) -> u64 {
        let figures = lock(&self.figures);
        if figures.sent.to == database { figures.sent.number } else { 0 }
    }

    /// How many outcomes it does not have yet, at the most.
    pub fn waiting_for(&self, database: &str) -> u64 {
        let figures = lock(&self.figures);
        let sent = if figures.sent.to == database { figures.sent.number } else { 0 };
        figures.number.saturating_sub(sent)
    }

    /// A database has all rows up to this number.
    pub fn is_sent(&self, database: &str, number: u64) {
        let mut figures = lock(&self.figures);
        let Figures { sent, .. } = &mut *figures;
        if sent.to == database && sent.number >= number {
            return;
        }
        (sent.to, sent.number) = (database.to_owned(), number);
        if let (key, Some(record)) = sent.record() {
            // Under the lock, so that an older number does not come later. One that is lost in a
            // kill only has some rows sent again.
            self.store.put(Shelf::Rollups, &key, record);
        }
    }

    /// The rows behind this number that are safe on the disk.
    pub async fn unsent(&self, after: u64) -> Result<Unsent, ReadError> {
        let last = lock(&self.figures).number;
        let reader = self.store.reader();
        // A row that a kill could take back would leave its number to another one.
        if !self.store.flush().await {
            return Err(ReadError::unkept());
        }
        let read = {
            let reader = reader.clone();
            move || reader.walk_from(after + 1, last)
        };
        // Else it panicked, which is in the log, or the daemon stops.
        let walk = tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(ReadError::unkept()))?;
        Ok(Unsent { walk: Some(walk), reader, after, last, is_cut: false })
    }
}

/// Rows, a piece at a time.
#[derive(Debug)]
pub struct Unsent {
    /// `None` once it is at the end.
    walk: Option<Walk>,
    reader: Reader,
    after: u64,
    /// There is nothing up to this number but what it shows.
    pub last: u64,
    /// Whether there were rows before the first one, which had to make room.
    pub is_cut: bool,
}

impl Unsent {
    /// The next rows with their numbers; none at the end.
    pub async fn next(&mut self, most: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let Some(mut walk) = self.walk.take() else { return Ok(Vec::new()) };
        let (reader, after) = (self.reader.clone(), std::mem::take(&mut self.after));
        let read = move || -> Result<_, ReadError> {
            let rows = walk.next_rows(most)?;
            let first = rows.first().map(|(number, _)| *number);
            // Numbers without rows are those of outcomes that were not to be stored.
            let is_gap = after > 0 && first.is_some_and(|it| it > after + 1);
            let is_cut = is_gap && reader.first_number()? == first;
            Ok((walk, rows, is_cut))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (walk, rows, is_cut) = read.unwrap_or_else(|_| Err(ReadError::unkept()))?;
        self.is_cut = is_cut;
        self.walk = (!rows.is_empty()).then_some(walk);
        Ok(rows)
    }
}
