//! One database: opened, checked, and moved aside when damaged.

use std::{
    any::Any,
    fs, io, panic,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sled::{Db, Tree};

use super::Records;

/// The version of how things are laid out. A newer one is refused.
pub(super) const SCHEMA: u32 = 1;

const META: &str = "meta";
const SCHEMA_KEY: &str = "schema";

/// sled keeps pages of this size in memory. Its default lets that grow to half
/// a gigabyte; a few dozen servers need next to nothing, and rows are read once.
const CACHE: u64 = 2 << 20;

/// How late a thread of sled's may look up from waiting.
#[cfg(target_os = "linux")]
const SLACK: Duration = Duration::from_secs(4);

/// One database as it was opened, with its trees.
pub(super) struct Base<const N: usize> {
    pub(super) db: Db,
    pub(super) trees: [Tree; N],
    /// What is in them, where that was wanted.
    pub(super) records: [Records; N],
    /// Whether what was there before is lost.
    pub(super) is_anew: bool,
}

/// How much of a database is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All records are read.
    AtAll,
    /// Records are read when they are wanted.
    AtNothing,
}

/// Why there is no store.
#[derive(Debug)]
pub(super) enum Error {
    /// A newer version wrote it, with this schema.
    Future(u32),
    /// It cannot be used, though nothing says that it is damaged.
    Failed(String),
}

/// Why one database was not opened.
#[derive(Debug)]
pub(super) enum Trouble {
    Damaged(String),
    Other(Error),
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            // A file that is shorter than it says it is.
            sled::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            sled::Error::Io(error) => Self::Other(Error::Failed(error.to_string())),
            // A bug that sled reports is one that its data leads it into.
            sled::Error::Corruption { .. }
            | sled::Error::ReportableBug(_)
            | sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_) => Self::Damaged(error.to_string()),
        }
    }
}

/// Opens a database; one that is damaged is moved aside, which is told in `notes`.
pub(super) fn open_or_begin_anew<const N: usize>(
    path: &Path,
    trees: [&str; N],
    look: Look,
    notes: &mut Vec<String>,
) -> Result<Base<N>, Error> {
    match open_caught(path, trees, look) {
        Ok(opened) => Ok(opened),
        Err(Trouble::Other(error)) => Err(error),
        Err(Trouble::Damaged(why)) => {
            let aside = move_aside(path).map_err(|error| Error::Failed(error.to_string()))?;
            let note = format!("{} was damaged ({why}); it is now {}", path.display(), aside.display());
            tracing::error!("{note}, and an empty one took its place");
            notes.push(note);
            match open_caught(path, trees, look) {
                Ok(opened) => Ok(Base { is_anew: true, ..opened }),
                Err(Trouble::Other(error)) => Err(error),
                Err(Trouble::Damaged(why)) => Err(Error::Failed(why)),
            }
        }
    }
}

/// sled panics on some damage instead of reporting it.
fn open_caught<const N: usize>(path: &Path, trees: [&str; N], look: Look) -> Result<Base<N>, Trouble> {
    unhurried(|| panic::catch_unwind(|| open(path, trees, look)))
        .unwrap_or_else(|panic| Err(Trouble::Damaged(words(&*panic))))
}

/// Has the threads that begin meanwhile wake together with others. sled (0.34) keeps seven that
/// wait for work and look up each second, each at a moment of its own; work still wakes them at
/// once.
fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::set_current_timer_slack;
        let slack = u64::try_from(SLACK.as_nanos()).ok().and_then(std::num::NonZeroU64::new);
        // Where it cannot be set they wake as they would.
        let _ = set_current_timer_slack(slack);
        let done = work();
        // None is what this thread began with.
        let _ = set_current_timer_slack(None);
        done
    }
    #[cfg(not(target_os = "linux"))]
    work()
}

/// sled may panic once more when a broken database is dropped.
pub(super) fn drop_caught<T>(it: T) {
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| drop(it)));
}

pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic").lines().next().unwrap_or_default().to_owned()
}

fn open<const N: usize>(path: &Path, names: [&str; N], look: Look) -> Result<Base<N>, Trouble> {
    let db = open_db(path)?;
    let meta = db.open_tree(META)?;
    let mut trees = Vec::with_capacity(N);
    for name in names {
        trees.push(db.open_tree(name)?);
    }
    match meta.get(SCHEMA_KEY)? {
        Some(schema) => match <[u8; 4]>::try_from(&schema[..]).map(u32::from_be_bytes) {
            Ok(SCHEMA) => {}
            Ok(found) if found > SCHEMA => return Err(Trouble::Other(Error::Future(found))),
            Ok(_) | Err(_) => return Err(Trouble::Damaged("its schema cannot be read".to_owned())),
        },
        // New, or it was killed before it was first flushed.
        None if trees.iter().all(Tree::is_empty) => {
            meta.insert(SCHEMA_KEY, &SCHEMA.to_be_bytes())?;
            db.flush()?;
        }
        None => return Err(Trouble::Damaged("its schema is missing".to_owned())),
    }
    let mut records = Vec::with_capacity(N);
    for tree in &trees {
        let mut read = Records::new();
        if look == Look::AtAll {
            for record in tree {
                let (key, value) = record?;
                read.push((key.to_vec(), value.to_vec()));
            }
        }
        records.push(read);
    }
    let missing = || Trouble::Damaged("a tree is missing".to_owned());
    let trees = <[_; N]>::try_from(trees).map_err(|_| missing())?;
    let records = <[_; N]>::try_from(records).map_err(|_| missing())?;
    Ok(Base { db, trees, records, is_anew: false })
}

/// Opens the database, with some patience for its own lock: we hold ours, so it
/// can only be a thread of sled's that has not quite ended.
fn open_db(path: &Path) -> Result<Db, Trouble> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
    let mut tries = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if error.kind() == io::ErrorKind::Other && tries < 20 => {
                tries += 1;
                thread::sleep(Duration::from_millis(50));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Renames a damaged directory, so that a person can still look into it.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut number = 1;
    loop {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".damaged-{time}"));
        if number > 1 {
            aside.push(format!("-{number}"));
        }
        let aside = PathBuf::from(aside);
        if !aside.exists() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
        number += 1;
    }
}
