//! Rows read again: forwards in pieces, or backwards from the newest.
//!
//! Reading blocks. Nothing is held while nobody reads but the place, so a reader may take its
//! time and slows nobody; of what is deleted meanwhile it misses the rest.

use std::{
    ops::{ControlFlow, RangeInclusive},
    panic,
    sync::Arc,
};

use super::{
    base::words,
    rows::{Library, Open, numbers},
};

/// Why rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored outcomes cannot be read: {0}")]
pub struct ReadError(String);

impl ReadError {
    /// Nothing that is written lasts, so what can be read says nothing.
    pub fn unkept() -> Self {
        Self("the store does not work".to_owned())
    }
}

impl From<sled::Error> for ReadError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

/// The rows that there are.
#[derive(Clone, Debug)]
pub struct Reader(pub(super) Arc<Library>);

/// A way through rows, oldest first.
#[derive(Debug)]
pub struct Walk {
    library: Arc<Library>,
    hours: RangeInclusive<u32>,
    next: u64,
    last: u64,
    /// The directory that is read.
    part: u64,
    /// Its database, and between which numbers what is wanted lies in it.
    held: Option<(u64, Arc<Open>, RangeInclusive<u64>)>,
}

impl Reader {
    /// A way through the rows that may be of these hours, up to a number.
    pub fn walk(&self, hours: RangeInclusive<u32>, from: u64, last: u64) -> Walk {
        Walk { library: self.0.clone(), hours, next: from, last, part: 0, held: None }
    }

    /// A way through all rows from this number on, up to another. The directories before it are
    /// not opened.
    pub fn walk_from(&self, from: u64, last: u64) -> Result<Walk, ReadError> {
        let mut walk = self.walk(0..=u32::MAX, from, last);
        let mut part = u64::MAX;
        while let Some(it) = self.0.before(part) {
            part = it.number;
            walk.part = part;
            let Some(open) = self.0.open_to_read(&it).map_err(ReadError)? else { continue };
            let first = caught(|| Ok(open.rows.first()?.map(|(key, _)| number(&key))))?;
            if first.is_some_and(|it| it <= from) {
                break;
            }
        }
        Ok(walk)
    }

    /// Shows rows below this number, the newest first, until `see` has enough.
    pub fn back(
        &self,
        before: u64,
        mut see: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut part = u64::MAX;
        while let Some(it) = self.0.before(part) {
            part = it.number;
            let Some(open) = self.0.open_to_read(&it).map_err(ReadError)? else { continue };
            let shown = caught(|| {
                for row in open.rows.range(..before.to_be_bytes()).rev() {
                    let (key, bytes) = row?;
                    if see(number(&key), &bytes).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if shown.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The lowest number that a row has.
    pub fn first_number(&self) -> Result<Option<u64>, ReadError> {
        let rows = self.walk(0..=u32::MAX, 0, u64::MAX).next_rows(1)?;
        Ok(rows.first().map(|(number, _)| *number))
    }

    /// The highest number that a row has.
    pub fn last_number(&self) -> Result<Option<u64>, ReadError> {
        let mut last = None;
        self.back(u64::MAX, |number, _| {
            last = Some(number);
            ControlFlow::Break(())
        })?;
        Ok(last)
    }
}

impl Walk {
    /// The next rows, so many at the most; none at the end. Rows of other hours may be among them.
    pub fn next_rows(&mut self, most: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        loop {
            let Some(part) = self.library.from(self.part) else { return Ok(Vec::new()) };
            self.part = part.number;
            if self.held.as_ref().is_none_or(|(number, ..)| *number != part.number) {
                self.held = match self.library.open_to_read(&part).map_err(ReadError)? {
                    Some(open) => self.bounds(&open)?.map(|bounds| (part.number, open, bounds)),
                    None => None,
                };
            }
            let rows = match &self.held {
                Some((_, open, bounds)) => {
                    let (from, to) = (self.next.max(*bounds.start()), self.last.min(*bounds.end()));
                    if from <= to { read(open, from..=to, most)? } else { Vec::new() }
                }
                None => Vec::new(),
            };
            if let Some((number, _)) = rows.last() {
                self.next = number + 1;
                return Ok(rows);
            }
            self.part += 1;
            self.held = None;
        }
    }

    /// Between which numbers the rows of the wanted hours lie.
    fn bounds(&self, open: &Open) -> Result<Option<RangeInclusive<u64>>, ReadError> {
        if self.hours == (0..=u32::MAX) {
            return Ok(Some(0..=u64::MAX));
        }
        let (from, to) = (self.hours.start().to_be_bytes(), self.hours.end().to_be_bytes());
        caught(|| {
            let mut bounds: Option<(u64, u64)> = None;
            for entry in open.hours.range(from..=to) {
                let (_, value) = entry?;
                if let Some((first, last)) = numbers(&value) {
                    let (low, high) = bounds.unwrap_or((first, last));
                    bounds = Some((low.min(first), high.max(last)));
                }
            }
            Ok(bounds.map(|(low, high)| low..=high))
        })
    }
}

fn read(open: &Open, range: RangeInclusive<u64>, most: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    caught(|| {
        let mut rows = Vec::new();
        for row in open.rows.range(range.start().to_be_bytes()..=range.end().to_be_bytes()).take(most) {
            let (key, bytes) = row?;
            rows.push((number(&key), bytes.to_vec()));
        }
        Ok(rows)
    })
}

fn number(key: &[u8]) -> u64 {
    <[u8; 8]>::try_from(key).map_or(0, u64::from_be_bytes)
}

/// sled panics on some damage instead of reporting it.
fn caught<T>(read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    panic::catch_unwind(panic::AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(ReadError(words(&*panic))))
}
