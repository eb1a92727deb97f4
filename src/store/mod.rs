//! Keeps records across restarts, and does not know what they are for.
//!
//! The only room that names sled. sled blocks, so it lives on a thread of its
//! own: `put` and `delete` leave a note and return at once, the thread writes
//! the notes down and flushes at most every half second, and only when there
//! was something to write. Of several notes about one key only the last is
//! kept; when too many keys wait, further ones are dropped and counted. A
//! request never waits for a disk, and a store that fails is reported and fails
//! nothing.
//!
//! What is in the way of opening is told apart: another daemon holds the
//! directory, or a newer version wrote it (both are refused); what is damaged
//! is moved aside and begun anew; anything else means running without a store.
//!
//! Besides records there are rows, which only ever come behind one another (`append`). They are
//! on the disk before any sum that was put after them, so that sums never know more than rows.

mod base;
mod disk;
mod lock;
mod reading;
mod rows;
mod work;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use self::{
    base::Error,
    disk::{Disk, Notes},
    lock::Lock,
    rows::Library,
    work::work,
};
pub use self::{
    reading::{ReadError, Reader, Walk},
    rows::Row,
};

/// So many keys may wait for the disk. Servers are dozens and roll-ups are
/// hundreds; more wait only when the disk hangs.
const WAITING: usize = 4096;
/// So many rows may wait for the disk: what a busy daemon writes in some seconds, and a few MiB.
const ROWS_WAITING: usize = 16_384;
/// From so many on they do not wait for the next sums.
const ROWS_AT_ONCE: usize = 1_024;

/// What records are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    /// What is known of servers.
    Servers,
    /// Sums over outcomes.
    Rollups,
    /// What was spent, by day.
    Spending,
}

/// What was on a shelf: keys with their records, in the order of the keys.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What was found when the store was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What was on the shelf of servers.
    pub servers: Records,
    /// What was on the shelf of roll-ups.
    pub rollups: Records,
    /// What was on the shelf of spending; `None` where that was damaged.
    pub spending: Option<Records>,
}

/// Why a directory is left alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another daemon works in it.
    #[error("the state directory {} is in use{}", dir.display(), pid.map(|it| format!(" by process {it}")).unwrap_or_default())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// That daemon's process, if it wrote it down.
        pid: Option<u32>,
    },
    /// A newer version has written it.
    #[error("the state in {} was written by a newer version of lovable (schema {found}, this one knows {known})", dir.display())]
    Future {
        /// The directory.
        dir: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that is known here.
        known: u32,
    },
}

/// How the store is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is; `None` when nothing is kept.
    pub path: Option<PathBuf>,
    /// What it takes on the disk.
    pub bytes: u64,
    /// Whether what is put in it lasts.
    pub ok: bool,
    /// How many records could not be kept.
    pub dropped: u64,
    /// What a person should know: why nothing is kept, what was moved aside.
    pub reasons: Vec<String>,
}

/// The handle of the store. Dropping it writes down what waits.
pub struct Store {
    shared: Arc<Shared>,
    path: Option<PathBuf>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    woken: Condvar,
    bytes: AtomicU64,
    dropped: AtomicU64,
    /// Why it does not keep anything (any more).
    broken: Mutex<Option<String>>,
    /// Why rows were lost.
    lost_rows: Mutex<Option<String>>,
    library: Arc<Library>,
    /// What was moved aside when it was opened.
    notes: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Waiting {
    notes: Notes,
    rows: Vec<Row>,
    /// Rows and sums that were there before those that wait are to be deleted.
    clear: bool,
    /// Notes are to last at once.
    now: bool,
    /// Who waits for a flush.
    flushes: Vec<oneshot::Sender<bool>>,
    stop: bool,
    /// Nobody writes any more.
    gone: bool,
}

impl Store {
    /// Opens the store in `dir`, which is made if need be. No rows are kept.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), StoreError> {
        Self::open_for(dir, None)
    }

    /// The same, with rows that take so many bytes at the most.
    pub fn open_with_rows(dir: &Path, most: u64) -> Result<(Self, Loaded), StoreError> {
        Self::open_for(dir, Some(most))
    }

    fn open_for(dir: &Path, most_rows: Option<u64>) -> Result<(Self, Loaded), StoreError> {
        let lock = match Lock::take(dir) {
            Ok(lock) => lock,
            Err(lock::Error::Held(pid)) => return Err(StoreError::Held { dir: dir.to_owned(), pid }),
            Err(lock::Error::Io(error)) => return Ok(Self::without(dir, &error)),
        };
        let mut notes = Vec::new();
        let library = Arc::new(Library::of(dir));
        let (disk, loaded) = match Disk::open(dir, &library, most_rows, &mut notes) {
            Ok(opened) => opened,
            Err(Error::Future(found)) => {
                let known = base::SCHEMA;
                return Err(StoreError::Future { dir: dir.to_owned(), found, known });
            }
            Err(Error::Failed(why)) => return Ok(Self::without(dir, &why)),
        };
        let shared = Arc::new(Shared { notes: Mutex::new(notes), library, ..Shared::default() });
        shared.bytes.store(disk.bytes(), Ordering::Relaxed);
        let work = {
            let shared = shared.clone();
            move || work(&shared, disk, lock)
        };
        match thread::Builder::new().name("store".to_owned()).spawn(work) {
            Ok(thread) => {
                let store = Self { shared, path: Some(dir.to_owned()), thread: Mutex::new(Some(thread)) };
                Ok((store, loaded))
            }
            Err(error) => Ok(Self::without(dir, &error)),
        }
    }

    /// A store that keeps nothing, and says why when asked how it is.
    pub fn none(reason: impl Into<String>) -> Self {
        let shared = Shared::default();
        *guard(&shared.broken) = Some(reason.into());
        guard(&shared.waiting).gone = true;
        Self { shared: Arc::new(shared), path: None, thread: Mutex::new(None) }
    }

    fn without(dir: &Path, why: &dyn fmt::Display) -> (Self, Loaded) {
        let reason = format!("nothing is kept across restarts: cannot use {}: {why}", dir.display());
        tracing::error!("{reason}");
        (Self::none(reason), Loaded::default())
    }

    /// Keeps a record under this key, in place of an older one.
    pub fn put(&self, shelf: Shelf, key: &[u8], record: Vec<u8>) {
        self.note(shelf, key, Some(record));
    }

    /// Forgets the record under this key.
    pub fn delete(&self, shelf: Shelf, key: &[u8]) {
        self.note(shelf, key, None);
    }

    fn note(&self, shelf: Shelf, key: &[u8], record: Option<Vec<u8>>) {
        let mut waiting = guard(&self.shared.waiting);
        let key = (shelf, key.to_vec());
        if waiting.gone || waiting.notes.len() >= WAITING && !waiting.notes.contains_key(&key) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.notes.insert(key, record);
        drop(waiting);
        self.shared.woken.notify_one();
    }

    /// Keeps and forgets several records of one shelf, all of them or none, and at once. False
    /// when that is not possible now.
    pub fn put_all(
        &self,
        shelf: Shelf,
        records: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> bool {
        let mut waiting = guard(&self.shared.waiting);
        if waiting.gone || waiting.notes.len() >= WAITING {
            return false;
        }
        waiting.notes.extend(records.into_iter().map(|(key, record)| ((shelf, key), record)));
        waiting.now = true;
        drop(waiting);
        self.shared.woken.notify_one();
        true
    }

    /// Adds a row behind all others. It is written with the next sums, or when it is one of many.
    pub fn append(&self, row: Row) {
        let mut waiting = guard(&self.shared.waiting);
        if waiting.gone || waiting.rows.len() >= ROWS_WAITING {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.rows.push(row);
        let many = waiting.rows.len() >= ROWS_AT_ONCE;
        drop(waiting);
        if many {
            self.shared.woken.notify_one();
        }
    }

    /// Deletes all rows and sums, those that still wait too. What comes later is kept.
    pub fn clear(&self) {
        let mut waiting = guard(&self.shared.waiting);
        waiting.rows.clear();
        waiting.notes.retain(|(shelf, _), _| *shelf != Shelf::Rollups);
        waiting.clear = true;
        drop(waiting);
        self.shared.woken.notify_one();
    }

    /// For reading rows. Those that still wait are not among them: `flush` before.
    pub fn reader(&self) -> Reader {
        self.shared.library.keep_open();
        // It is the store's thread that closes what nobody reads any more.
        self.shared.woken.notify_one();
        Reader(self.shared.library.clone())
    }

    /// Waits until everything put before is on the disk; says whether it is.
    pub async fn flush(&self) -> bool {
        let flushed = {
            let mut waiting = guard(&self.shared.waiting);
            if waiting.gone {
                return false;
            }
            let (done, flushed) = oneshot::channel();
            waiting.flushes.push(done);
            flushed
        };
        self.shared.woken.notify_one();
        flushed.await.unwrap_or(false)
    }

    /// Whether what is put in it lasts.
    pub fn is_ok(&self) -> bool {
        guard(&self.shared.broken).is_none()
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        let broken = guard(&self.shared.broken).clone();
        let lost_rows = guard(&self.shared.lost_rows).clone();
        let mut reasons = guard(&self.shared.notes).clone();
        reasons.extend_from_slice(&guard(&self.shared.library.notes));
        let ok = broken.is_none() && lost_rows.is_none();
        reasons.extend(broken);
        reasons.extend(lost_rows);
        Status {
            path: self.path.clone(),
            bytes: self.shared.bytes.load(Ordering::Relaxed) + self.shared.library.bytes(),
            ok,
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            reasons,
        }
    }

    /// Writes down what waits and lets go of the directory. Blocks for as long
    /// as the disk takes.
    pub fn close(&self) {
        guard(&self.shared.waiting).stop = true;
        self.shared.woken.notify_one();
        if let Some(thread) = guard(&self.thread).take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?})", self.status())
    }
}

/// A record as it is kept: a version, so that old ones stay readable, then JSON.
pub fn record<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![version];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

/// Reads a record of this version; any other, or one that is broken, is `None`.
pub fn read_record<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Option<T> {
    let (first, json) = bytes.split_first()?;
    if *first != version {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Nothing that is done under these locks can leave half a change.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
