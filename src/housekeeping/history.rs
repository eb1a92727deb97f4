//! What is asked of outcomes that are over, in memory or on the disk.
//!
//! Reading the disk blocks, so it is done on threads for that, a piece at a time: a reader who
//! takes its time holds nothing meanwhile.

use std::{ops::ControlFlow, sync::Arc};

use super::{Housekeeping, keep::DISK, lock};
use crate::{
    generate::Outcome,
    ledger::{self, Filter},
    stats::{self, Gathered, Hour, Query, Stats, hour},
    store::{ReadError, Reader, Walk},
};

/// So many rows are read at once: some milliseconds of work.
const PIECE: usize = 1024;
/// More requests than that are not listed; an export has no end.
const LONGEST_LIST: usize = 10_000;

/// A span of time in milliseconds since 1970, from the first up to the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From then on.
    pub since_ms: Option<u64>,
    /// Before then.
    pub until_ms: Option<u64>,
}

impl Span {
    fn holds(self, at_ms: u64) -> bool {
        self.since_ms.is_none_or(|it| at_ms >= it) && self.until_ms.is_none_or(|it| at_ms < it)
    }
}

impl Housekeeping {
    /// Requests that are over, newest first, those of earlier runs too.
    pub async fn requests(&self, limit: usize, filter: &Filter) -> Vec<Arc<Outcome>> {
        let limit = limit.min(LONGEST_LIST);
        let (mut found, before) = {
            let recent = lock(&self.recent);
            let meant = recent.iter().rev().map(|(_, it)| it).filter(|it| filter.lets(it)).take(limit);
            (meant.cloned().collect::<Vec<_>>(), recent.front().map_or(u64::MAX, |(number, _)| *number))
        };
        let (left, filter) = (limit - found.len(), filter.clone());
        if left > 0 {
            self.written().await;
            let read = move |reader: Reader| {
                let mut older = Vec::new();
                let read = reader.back(before, |_, row| {
                    older.extend(ledger::read(row).ok().filter(|it| filter.lets(it)).map(Arc::new));
                    if older.len() < left { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                read.map(|()| older)
            };
            found.extend(self.off_hand(read).await.unwrap_or_default());
        }
        found
    }

    /// One request that is over, as far as the filter lets it be seen.
    pub async fn request(&self, id: &str, filter: &Filter) -> Option<Arc<Outcome>> {
        let known =
            lock(&self.recent).iter().rev().find(|(_, it)| it.request_id == id && filter.lets(it)).cloned();
        if let Some((_, known)) = known {
            return Some(known);
        }
        let (id, filter) = (id.to_owned(), filter.clone());
        let read = move |reader: Reader| {
            let mut found = None;
            reader.back(u64::MAX, |_, row| {
                if ledger::is_of(row, &id) {
                    found = ledger::read(row).ok().filter(|it| filter.lets(it)).map(Arc::new);
                }
                if found.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok(found)
        };
        self.off_hand(read).await.flatten()
    }

    /// Rows of the statistics of a span of time. Of hours that are only in part within it the
    /// outcomes themselves are looked at, where they are there; else such an hour counts whole.
    pub async fn report_of(&self, query: &Query, span: Span) -> Vec<stats::Row> {
        stats::rows(self.gather(query, span).await)
    }

    /// The same as sums.
    pub async fn gather(&self, query: &Query, span: Span) -> Gathered {
        let (since, until) =
            (span.since_ms.map(hour), span.until_ms.map(|it| hour(it.saturating_sub(1)) + 1));
        let whole = Query { since, until, ..query.clone() };
        let mut edges = Vec::new();
        edges.extend(span.since_ms.filter(|it| it % HOUR_MS > 0).map(hour));
        edges.extend(span.until_ms.filter(|it| it % HOUR_MS > 0).map(hour));
        edges.dedup();
        if edges.is_empty() {
            return self.with_stats(|it| gathered(it, &whole));
        }
        // What is in the sums at one moment is compared with what the rows up to that moment say.
        let (counted, last) = {
            let figures = lock(&self.figures);
            (edges.iter().map(|it| figures.stats.requests_in(*it)).collect::<Vec<_>>(), figures.number)
        };
        self.written().await;
        let hours = edges.clone();
        let read = move |reader: Reader| {
            hours.iter().map(|it| part_of(&reader, *it, last, span)).collect::<Result<Vec<_>, _>>()
        };
        let read = self.off_hand(read).await.unwrap_or_default();
        let mut parts = Vec::new();
        let mut without = Vec::new();
        for ((hour, counted), (there, part)) in edges.iter().zip(counted).zip(read) {
            if Some(there) == counted {
                without.push(*hour);
                parts.push(part);
            }
        }
        let mut sums = Gathered::new();
        self.with_stats(|stats| {
            for (since, until) in
                spans_without(whole.since.unwrap_or(0), whole.until.unwrap_or(Hour::MAX), &without)
            {
                stats.gather(&Query { since: Some(since), until: Some(until), ..whole.clone() }, &mut sums);
            }
        });
        let all = Query { since: None, until: None, ..whole };
        parts.iter().for_each(|it| it.gather(&all, &mut sums));
        sums
    }

    /// All outcomes that are meant, oldest first.
    pub async fn export(&self, filter: Filter) -> Export {
        let last = lock(&self.figures).number;
        self.written().await;
        let first_hour = filter.since_ms.map_or(0, hour);
        let last_hour = filter.until_ms.map_or(Hour::MAX, hour);
        Export { walk: Some(self.store.reader().walk(first_hour..=last_hour, 0, last)), filter }
    }

    /// Waits until the rows of all that is over are on the disk, but not for a disk that hangs.
    async fn written(&self) {
        let _ = tokio::time::timeout(DISK, self.store.flush()).await;
    }

    /// Reads on a thread that may block. What cannot be read is said in the log.
    async fn off_hand<T: Send + 'static>(
        &self,
        read: impl FnOnce(Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Option<T> {
        let reader = self.store.reader();
        match tokio::task::spawn_blocking(move || read(reader)).await {
            Ok(Ok(read)) => Some(read),
            Ok(Err(error)) => {
                tracing::warn!("{error}");
                None
            }
            // It panicked, which is in the log, or the daemon stops.
            Err(_) => None,
        }
    }
}

const HOUR_MS: u64 = 3_600_000;

fn gathered(stats: &Stats, query: &Query) -> Gathered {
    let mut sums = Gathered::new();
    stats.gather(query, &mut sums);
    sums
}

/// How many outcomes of one hour have a number up to `last`, and the sums of those in the span.
/// The others are not read, but for their time: an hour may have very many.
fn part_of(reader: &Reader, of: Hour, last: u64, span: Span) -> Result<(u64, Stats), ReadError> {
    let mut walk = reader.walk(of..=of, 0, last);
    let (mut there, mut part) = (0, Stats::default());
    loop {
        let rows = walk.next_rows(PIECE)?;
        if rows.is_empty() {
            return Ok((there, part));
        }
        for (_, row) in &rows {
            let Some(at_ms) = ledger::at_ms(row).filter(|it| hour(*it) == of) else { continue };
            if span.holds(at_ms) {
                let Ok(outcome) = ledger::read(row) else { continue };
                part.add_past(&outcome);
            }
            there += 1;
        }
    }
}

/// The hours from `since` up to `until` but these, as spans.
fn spans_without(since: Hour, until: Hour, without: &[Hour]) -> Vec<(Hour, Hour)> {
    let mut spans = Vec::new();
    let mut from = since;
    for hour in without {
        spans.push((from, *hour));
        from = hour.saturating_add(1);
    }
    spans.push((from, until));
    spans.retain(|(from, until)| from < until);
    spans
}

/// Outcomes, a piece at a time.
#[derive(Debug)]
pub struct Export {
    /// `None` once it is at the end.
    walk: Option<Walk>,
    filter: Filter,
}

impl Export {
    /// The next outcomes; none at the end.
    pub async fn next(&mut self) -> Result<Vec<Outcome>, ReadError> {
        let Some(mut walk) = self.walk.take() else { return Ok(Vec::new()) };
        let filter = self.filter.clone();
        let read = move || -> Result<(Walk, Vec<Outcome>), ReadError> {
            loop {
                let rows = walk.next_rows(PIECE)?;
                let is_end = rows.is_empty();
                let outcomes: Vec<_> = rows
                    .iter()
                    .filter_map(|(_, row)| ledger::read(row).ok())
                    .filter(|it| filter.lets(it))
                    .collect();
                if is_end || !outcomes.is_empty() {
                    return Ok((walk, outcomes));
                }
            }
        };
        // An error of the thread is that the daemon stops.
        let Ok(read) = tokio::task::spawn_blocking(read).await else { return Ok(Vec::new()) };
        let (walk, outcomes) = read?;
        self.walk = Some(walk);
        Ok(outcomes)
    }
}
