//! The databases: one of what is known of servers and of spending, one of sums, and those
//! that hold rows.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sled::{Batch, Db, Tree};

use super::{
    Loaded, Shelf,
    base::{Base, Error, Look, open_or_begin_anew},
    rows::{Library, Row, Rows},
};

/// Notes of what is to be written: records, or `None` to delete them.
pub(super) type Notes = BTreeMap<(Shelf, Vec<u8>), Option<Vec<u8>>>;

/// All databases, and the trees in them.
pub(super) struct Disk {
    dir: PathBuf,
    registry: Db,
    servers: Tree,
    spending: Tree,
    /// Sums; `None` once they were cleared away and could not be begun anew.
    sums: Option<(Db, Tree)>,
    /// `None` where no rows are kept.
    rows: Option<Rows>,
}

impl Disk {
    /// Opens them; what was moved aside is told in `notes`. Where rows are kept they take
    /// `most_rows` bytes at the most.
    pub(super) fn open(
        dir: &Path,
        library: &std::sync::Arc<Library>,
        most_rows: Option<u64>,
        notes: &mut Vec<String>,
    ) -> Result<(Self, Loaded), Error> {
        let registry =
            open_or_begin_anew(&dir.join("registry"), ["servers", "spending"], Look::AtAll, notes)?;
        let Base { db, trees: [rollups], records: [of_rollups], .. } = open_sums(dir, notes)?;
        let [servers, spending] = registry.trees;
        let [of_servers, of_spending] = registry.records;
        let loaded = Loaded {
            servers: of_servers,
            rollups: of_rollups,
            spending: Some(of_spending).filter(|_| !registry.is_anew),
        };
        let rows = most_rows.map(|most| Rows::new(library.clone(), most));
        let (registry, sums) = (registry.db, Some((db, rollups)));
        Ok((Self { dir: dir.to_owned(), registry, servers, spending, sums, rows }, loaded))
    }

    fn tree(&self, shelf: Shelf) -> sled::Result<&Tree> {
        match shelf {
            Shelf::Servers => Ok(&self.servers),
            Shelf::Spending => Ok(&self.spending),
            Shelf::Rollups => match &self.sums {
                Some((_, rollups)) => Ok(rollups),
                None => Err(io::Error::other("the database of sums is gone").into()),
            },
        }
    }

    /// Writes notes down; they last after the next flush. Those of one shelf come back
    /// together or not at all.
    pub(super) fn write(&self, notes: Notes) -> sled::Result<()> {
        let mut batches: BTreeMap<Shelf, Batch> = BTreeMap::new();
        for ((shelf, key), record) in notes {
            let batch = batches.entry(shelf).or_default();
            match record {
                Some(record) => batch.insert(key, record),
                None => batch.remove(key),
            }
        }
        for (shelf, batch) in batches {
            self.tree(shelf)?.apply_batch(batch)?;
        }
        Ok(())
    }

    /// Makes all notes last.
    pub(super) fn flush(&self) -> sled::Result<()> {
        self.registry.flush()?;
        if let Some((sums, _)) = &self.sums {
            sums.flush()?;
        }
        Ok(())
    }

    /// Adds rows behind those that are there, and makes them last. Says how many, or how many were lost and why.
    pub(super) fn append(&mut self, rows: Vec<Row>) -> Result<usize, (usize, String)> {
        match &mut self.rows {
            Some(it) => it.append(rows),
            None => Ok(0),
        }
    }

    /// Deletes all rows and all sums: their directories, since within a database hardly any
    /// space is given back.
    pub(super) fn clear(&mut self, library: &Library) -> Result<(), String> {
        if let Some(rows) = &mut self.rows {
            rows.let_go();
        }
        library.clear().map_err(|error| error.to_string())?;
        drop(self.sums.take());
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "stats" || name.starts_with("stats.damaged-") {
                fs::remove_dir_all(entry.path()).map_err(|error| error.to_string())?;
            }
        }
        match open_sums(&self.dir, &mut Vec::new()) {
            Ok(Base { db, trees: [rollups], .. }) => self.sums = Some((db, rollups)),
            Err(Error::Failed(why)) => return Err(why),
            Err(Error::Future(schema)) => return Err(format!("schema {schema}")),
        }
        Ok(())
    }

    /// What registry and sums take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        let size = |it: &Db| it.size_on_disk().unwrap_or(0);
        size(&self.registry) + self.sums.as_ref().map_or(0, |(it, _)| size(it))
    }
}

fn open_sums(dir: &Path, notes: &mut Vec<String>) -> Result<Base<1>, Error> {
    open_or_begin_anew(&dir.join("stats"), ["rollups"], Look::AtAll, notes)
}
