//! What the store's thread does: waits for notes and rows, writes them down, flushes.

use std::{
    panic,
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{ROWS_AT_ONCE, Shared, Shelf, Waiting, base::drop_caught, disk::Disk, guard, lock::Lock};

/// At most so often is flushed: a flush is a write to the disk, and the disk of
/// a laptop should sleep. What a person confirmed is safe after this time.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// Works until it is told to stop, or cannot go on.
pub(super) fn work(shared: &Shared, mut disk: Disk, lock: Lock) {
    let worked = panic::catch_unwind(panic::AssertUnwindSafe(|| write_down(shared, &mut disk)));
    if worked.is_err() {
        shared.fail("the store broke down; nothing is kept until the next start");
    }
    let mut waiting = guard(&shared.waiting);
    waiting.gone = true;
    let lost = std::mem::take(&mut waiting.notes).len() + std::mem::take(&mut waiting.rows).len();
    // Who waits for a flush learns of it by this drop.
    waiting.flushes.clear();
    drop(waiting);
    shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
    shared.library.let_go();
    drop_caught(disk);
    drop(lock);
}

impl Waiting {
    fn is_idle(&self) -> bool {
        let few = self.rows.len() < ROWS_AT_ONCE && !self.now && !self.clear;
        few && self.notes.is_empty() && self.flushes.is_empty() && !self.stop
    }
}

fn write_down(shared: &Shared, disk: &mut Disk) {
    let mut flushed = None;
    let mut is_dirty = false;
    loop {
        let mut waiting = guard(&shared.waiting);
        while waiting.is_idle() {
            let left = if is_dirty { Some(until_flush(flushed)) } else { shared.library.kept_open() };
            waiting = match left {
                None => shared.woken.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) if is_dirty => break,
                Some(Duration::ZERO) => {
                    drop(waiting);
                    shared.library.let_go();
                    guard(&shared.waiting)
                }
                Some(left) => {
                    shared.woken.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let Waiting { notes, rows, clear, now, flushes, stop, gone: _ } = &mut *waiting;
        let (notes, rows, flushes) = (std::mem::take(notes), std::mem::take(rows), std::mem::take(flushes));
        let (clear, now, stop) = (std::mem::take(clear), std::mem::take(now), *stop);
        drop(waiting);

        if clear && let Err(why) = disk.clear(&shared.library) {
            shared.fail(&format!("statistics cannot be deleted: {why}"));
        }
        // Before the notes: sums must not last without the rows that are in them.
        shared.told_of_rows(disk.append(rows));
        let count = notes.len();
        let has_sums = notes.keys().any(|(shelf, _)| *shelf == Shelf::Rollups);
        is_dirty |= count > 0;
        let mut done = disk.write(notes);
        let is_time = stop || now || has_sums || !flushes.is_empty() || until_flush(flushed).is_zero();
        if done.is_ok() && is_dirty && is_time {
            done = disk.flush();
            flushed = Some(Instant::now());
            is_dirty = false;
            shared.bytes.store(disk.bytes(), Ordering::Relaxed);
        }
        if let Err(why) = &done {
            is_dirty = false;
            shared.dropped.fetch_add(count as u64, Ordering::Relaxed);
            shared.fail(&format!("records are lost: {why}"));
        }
        for flush in flushes {
            // Whoever asked may have left.
            let _ = flush.send(done.is_ok());
        }
        if stop {
            return;
        }
    }
}

fn until_flush(flushed: Option<Instant>) -> Duration {
    flushed.map_or(Duration::ZERO, |it| FLUSH_EVERY.saturating_sub(it.elapsed()))
}

impl Shared {
    /// Reports once; a broken disk would fill the log otherwise.
    fn fail(&self, why: &str) {
        let mut broken = guard(&self.broken);
        if broken.is_none() {
            tracing::error!("{why}");
            *broken = Some(why.to_owned());
        }
    }

    /// Counts lost rows, and says so once for as long as they are lost.
    fn told_of_rows(&self, told: Result<usize, (usize, String)>) {
        let mut lost = guard(&self.lost_rows);
        let (count, why) = match told {
            Ok(0) => return,
            Ok(_) => return *lost = None,
            Err(told) => told,
        };
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
        if lost.is_none() {
            let why = format!("outcomes are lost: {why}");
            tracing::error!("{why}");
            *lost = Some(why);
        }
    }
}
