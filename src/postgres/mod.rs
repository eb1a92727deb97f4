//! Sends outcomes to a PostgreSQL database that many daemons may share.
//!
//! The only room that names tokio-postgres. There is no second queue: what is to be sent are the
//! rows of the ledger behind the last one that the database has, and its number is kept beside
//! the sums. What tells a row from all others is what is in it, so that sending one again, after
//! a kill or in doubt whether it arrived, changes nothing. While the database is away nothing
//! piles up but what the ledger keeps anyway; requests know nothing of all this.
//!
//! Somebody who names another database gets there what the ledger has: the number is kept with
//! the name of the database that it is about.

mod link;
mod place;
mod row;
mod schema;
mod trouble;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use self::{link::Link, row::Batch};
pub use self::{
    place::{Database, EXPECTED},
    trouble::Trouble,
};
use crate::housekeeping::{Housekeeping, wall_ms};

/// So many outcomes are sent at once: half a MiB or so.
const AT_ONCE: usize = 500;
/// Between two of those, so that half a million that waited take a minute or two and not a
/// processor.
const BREATH: Duration = Duration::from_millis(30);
/// A connection is kept for so long after the last outcome: a database has few of them, and many
/// daemons may want one.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// After a failure this is waited, then twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who sends, and how that goes.
pub struct Sharing {
    house: Arc<Housekeeping>,
    to: watch::Sender<Option<Database>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    trouble: Option<Trouble>,
    since_ms: u64,
    refused: u64,
    deleted: bool,
}

/// How sending goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where to.
    pub database: String,
    /// How many outcomes are not there yet, at the most.
    pub waiting: u64,
    /// How many it refused as they are; they are not sent again.
    pub refused: u64,
    /// Whether some were deleted here before they could be sent.
    pub deleted: bool,
    /// Why nothing goes on, and since when, in milliseconds since 1970.
    pub trouble: Option<(Trouble, u64)>,
}

impl Sharing {
    /// Sends nothing before it is told where to, and runs.
    pub fn new(house: Arc<Housekeeping>, to: Option<Database>) -> Arc<Self> {
        Arc::new(Self { house, to: watch::channel(to).0, seen: Mutex::default() })
    }

    /// Takes over what the person says now: another database, or none.
    pub fn configure(&self, to: Option<Database>) {
        self.to.send_if_modified(|it| {
            let is_new = *it != to;
            *it = to;
            is_new
        });
    }

    /// How it goes; `None` where nothing is to be sent.
    pub fn status(&self) -> Option<Status> {
        let name = self.to.borrow().as_ref()?.name().to_owned();
        let waiting = self.house.waiting_for(&name);
        let seen = self.seen();
        let trouble = seen.trouble.clone().map(|it| (it, seen.since_ms));
        Some(Status { database: name, waiting, refused: seen.refused, deleted: seen.deleted, trouble })
    }

    /// Sends outcomes as they come, until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut told = self.to.subscribe();
        loop {
            let to = told.borrow_and_update().clone();
            *self.seen() = Seen::default();
            tokio::select! {
                // The sender is ours.
                _ = told.changed() => {}
                () = self.keep_sending(to) => {}
            }
        }
    }

    async fn keep_sending(&self, to: Option<Database>) {
        let Some(to) = to else { return std::future::pending().await };
        let mut failures = 0;
        loop {
            self.until_something_waits(&to).await;
            let Err(trouble) = self.send(&to, &mut failures).await else { continue };
            self.is_in(trouble, &to);
            sleep(pause(failures, fastrand::f64())).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn until_something_waits(&self, to: &Database) {
        let sent = self.house.sent_to(to.name());
        // The house is ours, so it does not end.
        let _ = self.house.kept().wait_for(|last| *last > sent).await;
    }

    /// Sends over one connection, until nothing has come for a while.
    async fn send(&self, to: &Database, failures: &mut u32) -> Result<(), Trouble> {
        let mut link = Link::connect(to, *failures).await?;
        prepare(&mut link).await?;
        let insert = schema::insert();
        loop {
            let sent = self.house.sent_to(to.name());
            let mut unsent = self.house.unsent(sent).await.map_err(Trouble::Unread)?;
            loop {
                let rows = unsent.next(AT_ONCE).await.map_err(Trouble::Unread)?;
                let Some((first, _)) = rows.first() else { break };
                if unsent.is_cut && !std::mem::replace(&mut self.seen().deleted, true) {
                    tracing::warn!(
                        "outcomes before number {first} were deleted here before PostgreSQL had them"
                    );
                }
                let batch = tokio::task::spawn_blocking(move || Batch::of(&rows)).await;
                // It panicked, which is in the log, or the daemon stops.
                let Ok(batch) = batch else { return Err(Trouble::Broken) };
                self.put(&mut link, &insert, batch, to).await?;
                *failures = 0;
                self.is_well(to);
                sleep(BREATH).await;
            }
            self.house.is_sent(to.name(), unsent.last);
            *failures = 0;
            self.is_well(to);
            if tokio::time::timeout(KEEP_IDLE, self.until_something_waits(to)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Puts rows into the table, and if it does not take them, those of them that it takes.
    async fn put(&self, link: &mut Link, insert: &str, batch: Batch, to: &Database) -> Result<(), Trouble> {
        let mut left = vec![batch];
        while let Some(batch) = left.pop() {
            let until = batch.until;
            match link.put(insert, [&batch.text(), &self.house.ledger_name()]).await {
                Ok(_) => {}
                Err(Trouble::Rows(_)) if batch.len() > 1 => {
                    let [first, second] = batch.halves();
                    left.extend([second, first]);
                    continue;
                }
                Err(Trouble::Rows(code)) => {
                    tracing::error!("PostgreSQL at {} refuses an outcome (error {code})", to.name());
                    self.seen().refused += 1;
                }
                Err(trouble) => return Err(trouble),
            }
            self.house.is_sent(to.name(), until);
        }
        Ok(())
    }

    fn is_well(&self, to: &Database) {
        if self.seen().trouble.take().is_some() {
            tracing::info!("outcomes go to PostgreSQL at {} again", to.name());
        }
    }

    /// Says once what is wrong, until it is something else.
    fn is_in(&self, trouble: Trouble, to: &Database) {
        let mut seen = self.seen();
        if seen.trouble.is_none() {
            seen.since_ms = wall_ms();
        }
        if seen.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("outcomes wait for PostgreSQL at {}: {trouble}", to.name());
        }
        seen.trouble = Some(trouble);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that is done under it can leave half a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that the tables are there. Several daemons may do so at once.
async fn prepare(link: &mut Link) -> Result<(), Trouble> {
    if is_present(link).await? {
        return Ok(());
    }
    link.run("begin").await?;
    link.run(schema::LOCK).await?;
    // Somebody else may have done it while we waited.
    if !is_present(link).await? {
        if !flag(link, schema::HAS_SCHEMA).await? {
            link.run(schema::NEW_SCHEMA).await?;
        }
        let from = version(link).await?.unwrap_or((0, 0));
        link.run(&schema::upgrade(from)).await?;
    }
    link.run("commit").await
}

/// Whether nothing has to be done to the tables. Those of a newer lovable are left alone.
async fn is_present(link: &mut Link) -> Result<bool, Trouble> {
    let Some(found) = version(link).await? else { return Ok(false) };
    if found.0 > schema::present().0 {
        return Err(Trouble::Newer(found.0));
    }
    Ok(schema::upgrade(found).is_empty())
}

async fn version(link: &mut Link) -> Result<Option<(i32, i32)>, Trouble> {
    if !flag(link, schema::IS_THERE).await? {
        return Ok(None);
    }
    let row = link.row(schema::VERSION).await?;
    let number = |at: usize| row.try_get::<_, i32>(at).map_err(|error| Trouble::of(&error));
    Ok(Some((number(0)?, number(1)?)))
}

async fn flag(link: &mut Link, text: &str) -> Result<bool, Trouble> {
    link.row(text).await?.try_get(0).map_err(|error| Trouble::of(&error))
}

/// How long to wait after so many failures before this one. `luck` is from 0 to 1.
fn pause(failures: u32, luck: f64) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    // Daemons that lost the same database do not come back to it all at once.
    full.mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0)
}
