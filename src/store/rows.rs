//! Rows that only ever come behind one another, in directories that are deleted as a whole.
//!
//! Each directory is a database of its own, one for a month or for an eighth of all the space
//! that rows may take, whichever is full sooner. When there is no more space the oldest goes.
//! Only the newest is open all the time; an older one is opened when somebody reads it.
//!
//! Beside its rows a directory knows for each hour the first and the last number of a row of
//! that hour. That is written before the rows are, so it may promise too much after a crash,
//! and never too little.

use std::{
    collections::BTreeMap,
    fmt, fs, io, panic,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sled::{Batch, Db, Tree};

use super::{
    base::{Base, Error, Look, drop_caught, open_or_begin_anew, words},
    guard,
};

/// A row, which is never changed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number: higher than those of all rows before it.
    pub number: u64,
    /// The hour that it is looked for under, since 1970.
    pub hour: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// All directories share the space in so many parts.
const PARTS: u64 = 8;
/// After a disk that took no rows another try is made: it may have been full.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How long what was read stays open.
const KEPT_OPEN: Duration = Duration::from_secs(60);

/// All directories, for whoever reads.
#[derive(Debug, Default)]
pub(super) struct Library {
    /// `None` where nothing is kept at all.
    dir: Option<PathBuf>,
    /// Oldest first.
    parts: Mutex<Vec<Arc<Part>>>,
    /// The highest number that one has had. None is given twice: of a directory that was
    /// deleted somebody may still read, and its database must not meet another one there.
    last: AtomicU64,
    /// What was moved aside.
    pub(super) notes: Mutex<Vec<String>>,
    /// What was read last. A large one takes some tenths of a second to open, and who asks once
    /// asks again.
    pub(super) read: Mutex<Read>,
}

#[derive(Debug, Default)]
pub(super) struct Read {
    /// Kept open until then.
    pub(super) until: Option<Instant>,
    open: Option<Arc<Open>>,
}

/// One directory.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    month: String,
    path: PathBuf,
    bytes: AtomicU64,
    pub(super) open: Mutex<Weak<Open>>,
}

/// One directory whose database is open.
pub(super) struct Open {
    db: Db,
    pub(super) rows: Tree,
    pub(super) hours: Tree,
}

impl Library {
    /// The directories in `dir`, none of which is opened.
    pub(super) fn of(dir: &Path) -> Self {
        let dir = dir.join("outcomes");
        let mut parts: Vec<_> = fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Part::named(&dir, entry.file_name().to_str()?))
            .collect();
        parts.sort_by_key(|it| it.number);
        let last = AtomicU64::new(parts.last().map_or(0, |it| it.number));
        Self { dir: Some(dir), parts: Mutex::new(parts), last, ..Self::default() }
    }

    /// What all of them take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        guard(&self.parts).iter().map(|it| it.bytes.load(Ordering::Relaxed)).sum()
    }

    /// The oldest of those that have this number or a higher one.
    pub(super) fn from(&self, number: u64) -> Option<Arc<Part>> {
        guard(&self.parts).iter().find(|it| it.number >= number).cloned()
    }

    /// The newest of those that have a lower number.
    pub(super) fn before(&self, number: u64) -> Option<Arc<Part>> {
        guard(&self.parts).iter().rev().find(|it| it.number < number).cloned()
    }

    /// What is opened next is kept open for a while.
    pub(super) fn keep_open(&self) {
        guard(&self.read).until = Some(Instant::now() + KEPT_OPEN);
    }

    /// How long what was read last is kept open from now on, if at all.
    pub(super) fn kept_open(&self) -> Option<Duration> {
        guard(&self.read).until.map(|it| it.saturating_duration_since(Instant::now()))
    }

    /// Closes what was read last, unless somebody reads it.
    pub(super) fn let_go(&self) {
        let read = std::mem::take(&mut *guard(&self.read));
        drop_caught(read);
    }

    /// The same as `open`, for whoever reads.
    pub(super) fn open_to_read(&self, part: &Part) -> Result<Option<Arc<Open>>, String> {
        let open = self.open(part)?;
        let mut read = guard(&self.read);
        let before = read.until.and_then(|_| std::mem::replace(&mut read.open, open.clone()));
        drop(read);
        drop_caught(before);
        Ok(open)
    }

    /// The database of a directory, which is opened if it is not; `None` when it was damaged
    /// and is moved aside.
    fn open(&self, part: &Part) -> Result<Option<Arc<Open>>, String> {
        let mut slot = guard(&part.open);
        if let Some(open) = slot.upgrade() {
            return Ok(Some(open));
        }
        // Deleted meanwhile: it must not be made anew by being opened.
        if !guard(&self.parts).iter().any(|it| it.number == part.number) {
            return Ok(None);
        }
        let mut notes = Vec::new();
        let base = open_or_begin_anew(&part.path, ["rows", "hours"], Look::AtNothing, &mut notes);
        guard(&self.notes).append(&mut notes);
        match base {
            Ok(Base { db, trees: [rows, hours], is_anew, .. }) => {
                let open = Arc::new(Open { db, rows, hours });
                *slot = Arc::downgrade(&open);
                Ok((!is_anew).then_some(open))
            }
            Err(Error::Failed(why)) => Err(why),
            Err(Error::Future(schema)) => Err(format!("it is of a newer version (schema {schema})")),
        }
    }

    /// Begins a new directory behind all others.
    fn begin(&self, month: &str) -> Result<(Arc<Part>, Arc<Open>), String> {
        let Some(dir) = &self.dir else { return Err("nothing is kept".to_owned()) };
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let part = Arc::new(Part::new(dir, number, month));
        fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        guard(&self.parts).push(part.clone());
        match self.open(&part) {
            Ok(Some(open)) => Ok((part, open)),
            failed => {
                guard(&self.parts).retain(|it| it.number != part.number);
                Err(failed.err().unwrap_or_else(|| "a new directory is damaged".to_owned()))
            }
        }
    }

    /// Deletes the oldest ones until all of them take no more than this. The newest stays.
    fn shrink_to(&self, most: u64) -> io::Result<()> {
        while self.bytes() > most {
            let oldest = {
                let mut parts = guard(&self.parts);
                if parts.len() < 2 { return Ok(()) } else { parts.remove(0) }
            };
            self.let_go();
            fs::remove_dir_all(&oldest.path)?;
        }
        Ok(())
    }

    /// Deletes all, those that were moved aside too. Who reads one just now may do so to its end.
    pub(super) fn clear(&self) -> io::Result<()> {
        guard(&self.parts).clear();
        guard(&self.notes).clear();
        self.let_go();
        let Some(dir) = &self.dir else { return Ok(()) };
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Part {
    fn new(dir: &Path, number: u64, month: &str) -> Self {
        let path = dir.join(format!("{number:06}-{month}"));
        let bytes = AtomicU64::new(size_of_dir(&path));
        Self { number, month: month.to_owned(), path, bytes, open: Mutex::default() }
    }

    /// The directory of this name, if it is one of ours.
    fn named(dir: &Path, name: &str) -> Option<Arc<Self>> {
        let (number, month) = name.split_once('-')?;
        let is_month = month.len() == 7 && month.bytes().all(|it| it.is_ascii_digit() || it == b'-');
        is_month.then(|| Some(Arc::new(Self::new(dir, number.parse().ok()?, month)))).flatten()
    }
}

fn size_of_dir(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(it) if it.is_dir() => size_of_dir(&entry.path()),
        Ok(it) => it.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// The month of an hour: `2026-03`.
fn month(hour: u32) -> String {
    let moment = jiff::Timestamp::from_second(i64::from(hour) * 3600).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m").to_string()
}

/// The one who writes rows.
pub(super) struct Rows {
    library: Arc<Library>,
    /// How many bytes all of them may take.
    most: u64,
    current: Option<Current>,
    /// When the disk took no more.
    failed: Option<Instant>,
}

/// The directory that rows are written to.
struct Current {
    part: Arc<Part>,
    open: Arc<Open>,
    /// For each hour the first and the last number.
    hours: BTreeMap<u32, (u64, u64)>,
}

impl Rows {
    pub(super) fn new(library: Arc<Library>, most: u64) -> Self {
        let rows = Self { library, most, current: None, failed: None };
        if let Err(error) = rows.library.shrink_to(most) {
            tracing::warn!(%error, "old outcomes cannot be deleted");
        }
        rows
    }

    /// Closes the directory that is written to.
    pub(super) fn let_go(&mut self) {
        drop_caught(self.current.take());
        self.failed = None;
    }

    /// Adds rows and makes them last. After a failure rows are lost for a while, and then a
    /// new directory is tried. Says how many were written, or lost and why.
    pub(super) fn append(&mut self, rows: Vec<Row>) -> Result<usize, (usize, String)> {
        let count = rows.len();
        if count == 0 {
            return Ok(0);
        }
        if self.failed.is_some_and(|it| it.elapsed() < TRY_AGAIN) {
            return Err((count, String::new()));
        }
        let write = panic::AssertUnwindSafe(|| self.write(rows));
        let written = panic::catch_unwind(write).unwrap_or_else(|panic| Err(words(&*panic)));
        if let Err(why) = written {
            // What was written of them may last or not; a directory that failed is not written to again.
            self.let_go();
            self.failed = Some(Instant::now());
            return Err((count, why));
        }
        self.failed = None;
        Ok(count)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), String> {
        let Some(last) = rows.last() else { return Ok(()) };
        let month = month(last.hour);
        let current = self.current(&month)?;
        let mut touched = BTreeMap::new();
        let mut batch = Batch::default();
        for Row { number, hour, bytes } in rows {
            let numbers = current.hours.entry(hour).or_insert((number, number));
            numbers.1 = number;
            touched.insert(hour, *numbers);
            batch.insert(&number.to_be_bytes(), bytes);
        }
        let mut hours = Batch::default();
        for (hour, (first, last)) in touched {
            hours.insert(&hour.to_be_bytes(), [first.to_be_bytes(), last.to_be_bytes()].concat());
        }
        let written = || -> sled::Result<u64> {
            current.open.hours.apply_batch(hours)?;
            current.open.rows.apply_batch(batch)?;
            current.open.db.flush()?;
            current.open.db.size_on_disk()
        };
        let bytes = written().map_err(|error| error.to_string())?;
        current.part.bytes.store(bytes, Ordering::Relaxed);
        if bytes >= self.most / PARTS {
            self.let_go();
        }
        self.library.shrink_to(self.most).map_err(|error| error.to_string())
    }

    /// The directory to write to: the newest, if it is of this month and not full, else a new one.
    fn current(&mut self, month: &str) -> Result<&mut Current, String> {
        let is_right = |part: &Part| {
            part.month.as_str() >= month && part.bytes.load(Ordering::Relaxed) < self.most / PARTS
        };
        let current = match self.current.take() {
            Some(current) if is_right(&current.part) => current,
            _ => {
                let failed = self.failed.is_some();
                let newest = self.library.before(u64::MAX).filter(|it| is_right(it) && !failed);
                let open = newest.and_then(|part| Some((self.library.open(&part).ok()??, part)));
                let (open, part) = match open {
                    Some(open) => open,
                    None => {
                        // So that the new one fits when it is full.
                        let left = self.most - self.most / PARTS;
                        self.library.shrink_to(left).map_err(|error| error.to_string())?;
                        let (part, open) = self.library.begin(month)?;
                        (open, part)
                    }
                };
                let hours = open.hours().map_err(|error| error.to_string())?;
                Current { part, open, hours }
            }
        };
        Ok(self.current.insert(current))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // sled's own would print every record.
        f.write_str("Open")
    }
}

impl Open {
    /// For each hour the first and the last number.
    fn hours(&self) -> sled::Result<BTreeMap<u32, (u64, u64)>> {
        let mut hours = BTreeMap::new();
        for entry in &self.hours {
            let (key, value) = entry?;
            if let (Ok(hour), Some(numbers)) = (<[u8; 4]>::try_from(&key[..]), numbers(&value)) {
                hours.insert(u32::from_be_bytes(hour), numbers);
            }
        }
        Ok(hours)
    }
}

/// The first and the last number, as they are kept of an hour.
pub(super) fn numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, last) = bytes.split_at_checked(8)?;
    Some((u64::from_be_bytes(first.try_into().ok()?), u64::from_be_bytes(last.try_into().ok()?)))
}
