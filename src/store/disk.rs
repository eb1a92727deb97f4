//! The databases: opened, checked, written, and moved aside when damaged.

use std::{
    any::Any,
    collections::BTreeMap,
    fs, io, panic,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sled::{Batch, Db, Tree};

use super::{Loaded, Records, Shelf};

/// The version of how things are laid out. A newer one is refused.
pub(super) const SCHEMA: u32 = 1;

const META: &str = "meta";
const SCHEMA_KEY: &str = "schema";

/// sled keeps pages of this size in memory. Its default lets that grow to half
/// a gigabyte; a few dozen servers need next to nothing.
const CACHE: u64 = 2 << 20;

/// Both databases, and the trees in them.
pub(super) struct Disk {
    registry: Db,
    stats: Db,
    servers: Tree,
    spending: Tree,
    rollups: Tree,
}

/// One database as it was opened, with one tree after the other.
struct Base<const N: usize> {
    db: Db,
    trees: [(Tree, Records); N],
    /// Whether what was there before is lost.
    is_anew: bool,
}

/// Why there is no store.
pub(super) enum Error {
    /// A newer version wrote it, with this schema.
    Future(u32),
    /// It cannot be used, though nothing says that it is damaged.
    Failed(String),
}

/// Why one database was not opened.
enum Trouble {
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

impl Disk {
    /// Opens both; what was moved aside is told in `notes`.
    pub(super) fn open(dir: &Path, notes: &mut Vec<String>) -> Result<(Self, Loaded), Error> {
        let registry = open_or_begin_anew(&dir.join("registry"), ["servers", "spending"], notes)?;
        let stats = open_or_begin_anew(&dir.join("stats"), ["rollups"], notes)?;
        let [(servers, of_servers), (spending, of_spending)] = registry.trees;
        let [(rollups, of_rollups)] = stats.trees;
        let loaded = Loaded {
            servers: of_servers,
            rollups: of_rollups,
            spending: Some(of_spending).filter(|_| !registry.is_anew),
        };
        let (registry, stats) = (registry.db, stats.db);
        Ok((Self { registry, stats, servers, spending, rollups }, loaded))
    }

    fn tree(&self, shelf: Shelf) -> &Tree {
        match shelf {
            Shelf::Servers => &self.servers,
            Shelf::Spending => &self.spending,
            Shelf::Rollups => &self.rollups,
        }
    }

    /// Writes notes down; they last after the next flush.
    pub(super) fn write(&self, notes: BTreeMap<(Shelf, Vec<u8>), Option<Vec<u8>>>) -> sled::Result<()> {
        let mut batches: BTreeMap<Shelf, Batch> = BTreeMap::new();
        for ((shelf, key), record) in notes {
            let batch = batches.entry(shelf).or_default();
            match record {
                Some(record) => batch.insert(key, record),
                None => batch.remove(key),
            }
        }
        for (shelf, batch) in batches {
            self.tree(shelf).apply_batch(batch)?;
        }
        Ok(())
    }

    /// Makes everything written last.
    pub(super) fn flush(&self) -> sled::Result<()> {
        self.registry.flush()?;
        self.stats.flush()?;
        Ok(())
    }

    /// What it takes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        let sizes = [&self.registry, &self.stats].map(|it| it.size_on_disk().unwrap_or(0));
        sizes.iter().sum()
    }
}

fn open_or_begin_anew<const N: usize>(
    path: &Path,
    trees: [&str; N],
    notes: &mut Vec<String>,
) -> Result<Base<N>, Error> {
    match open_caught(path, trees) {
        Ok(opened) => Ok(opened),
        Err(Trouble::Other(error)) => Err(error),
        Err(Trouble::Damaged(why)) => {
            let aside = move_aside(path).map_err(|error| Error::Failed(error.to_string()))?;
            let note = format!("{} was damaged ({why}); it is now {}", path.display(), aside.display());
            tracing::error!("{note}, and an empty one took its place");
            notes.push(note);
            match open_caught(path, trees) {
                Ok(opened) => Ok(Base { is_anew: true, ..opened }),
                Err(Trouble::Other(error)) => Err(error),
                Err(Trouble::Damaged(why)) => Err(Error::Failed(why)),
            }
        }
    }
}

/// sled panics on some damage instead of reporting it.
fn open_caught<const N: usize>(path: &Path, trees: [&str; N]) -> Result<Base<N>, Trouble> {
    panic::catch_unwind(|| open(path, trees)).unwrap_or_else(|panic| Err(Trouble::Damaged(words(&*panic))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic").lines().next().unwrap_or_default().to_owned()
}

fn open<const N: usize>(path: &Path, names: [&str; N]) -> Result<Base<N>, Trouble> {
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
    let mut read = Vec::with_capacity(N);
    for tree in trees {
        let mut records = Records::new();
        for record in &tree {
            let (key, value) = record?;
            records.push((key.to_vec(), value.to_vec()));
        }
        read.push((tree, records));
    }
    let trees = <[_; N]>::try_from(read).map_err(|_| Trouble::Damaged("a tree is missing".to_owned()))?;
    Ok(Base { db, trees, is_anew: false })
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
