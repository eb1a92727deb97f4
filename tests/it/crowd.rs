//! Many callers at once, each of whom looks closely at all of its answers, and what they saw.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    caller::{Caller, request},
    daemon::Daemon,
    proof::Table,
    witness::{Seen, Wrong, see},
};

const CHAT: &str = "/v1/chat/completions";

/// Many callers.
pub(crate) struct Crowd {
    pub(crate) caller: Caller,
    /// What a caller asks, by its number.
    pub(crate) body: fn(usize) -> Value,
    pub(crate) requests: usize,
    /// When no more are sent, whatever is left.
    pub(crate) until: Option<Instant>,
    pub(crate) at_once: usize,
    pub(crate) check: fn(&str) -> Result<usize, String>,
}

impl Crowd {
    /// Sends all requests.
    pub(crate) async fn run(self) -> Vec<Seen> {
        let (left, at_once) = (Arc::new(AtomicUsize::new(self.requests)), self.at_once);
        let crowd = Arc::new(self);
        let one = |number| {
            let (crowd, left) = (crowd.clone(), left.clone());
            let body = (crowd.body)(number).to_string();
            tokio::spawn(async move {
                let mut all = Vec::new();
                let mut connection = crowd.caller.connect().await.unwrap();
                let in_time = || crowd.until.is_none_or(|it| Instant::now() < it);
                while in_time() && left.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)).is_ok() {
                    // Closed by the daemon after an odd end, which is seen as such.
                    if connection.ready().await.is_err() {
                        connection = crowd.caller.connect().await.unwrap();
                        connection.ready().await.unwrap();
                    }
                    let request = request("POST", CHAT, body.clone().into(), &[]);
                    all.push(see(&mut connection, request, crowd.check).await);
                }
                all
            })
        };
        let callers: Vec<_> = (0..at_once).map(one).collect();
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.await.unwrap());
        }
        all
    }
}

/// What a crowd saw.
pub(crate) struct Sum {
    seen: Vec<Seen>,
    failed: Vec<String>,
    corrupted: Vec<String>,
    /// The counts of tokens of the prompt that were told.
    prompts: BTreeSet<u64>,
}

impl Sum {
    /// `words` is how many each answer has.
    pub(crate) fn of(seen: Vec<Seen>, words: usize) -> Self {
        let mut sum = Self { seen, failed: vec![], corrupted: vec![], prompts: BTreeSet::new() };
        for one in &sum.seen {
            match &one.whole {
                Ok((count, prompt)) if *count == words => {
                    sum.prompts.insert(*prompt);
                }
                Ok((count, _)) => sum.corrupted.push(format!("{count} words")),
                Err(Wrong::Failed(why)) => sum.failed.push(why.clone()),
                Err(Wrong::Corrupted(why)) => sum.corrupted.push(why.clone()),
            }
        }
        sum
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn longest_silence(&self) -> Duration {
        self.seen.iter().map(|it| it.silence).max().unwrap_or_default()
    }

    /// Every answer was whole, and told the same of itself as those of undisturbed servers.
    pub(crate) fn is_like(&self, undisturbed: &Self, log: &str) {
        let first = |all: &[String]| all.iter().take(3).cloned().collect::<Vec<_>>();
        let (failed, corrupted) = (first(&self.failed), first(&self.corrupted));
        assert!(
            failed.is_empty() && corrupted.is_empty(),
            "failed {}, corrupted {}: {failed:#?} {corrupted:#?}\n{log}",
            self.failed.len(),
            self.corrupted.len()
        );
        assert!(self.prompts.is_subset(&undisturbed.prompts), "{:?} {:?}", self.prompts, undisturbed.prompts);
    }

    pub(crate) fn row(&self, table: &mut Table, what: &str, resumed: u64) {
        let percentile = |of: fn(&Seen) -> Duration, percent: usize| {
            let mut all: Vec<_> = self.seen.iter().map(of).collect();
            all.sort_unstable();
            let at = (all.len() * percent).div_ceil(100).saturating_sub(1);
            format!("{} ms", all.get(at).copied().unwrap_or_default().as_millis())
        };
        table.row(&[
            &what,
            &self.seen.len(),
            &self.failed.len(),
            &self.corrupted.len(),
            &resumed,
            &percentile(|it| it.first, 50),
            &percentile(|it| it.first, 99),
            &percentile(|it| it.total, 50),
            &percentile(|it| it.total, 99),
            &format!("{} ms", self.longest_silence().as_millis()),
        ]);
    }
}

/// The columns of a table of sums.
pub(crate) const COLUMNS: [&str; 10] = [
    "servers",
    "requests",
    "failed",
    "corrupted",
    "resumed",
    "first p50",
    "first p99",
    "total p50",
    "total p99",
    "longest silence",
];

/// How many answers were resumed so far, by the daemon's own count.
pub(crate) async fn resumed(daemon: &Daemon) -> u64 {
    daemon.caller().get("/lovable/v1/status").await.json()["requests"]["resumed"].as_u64().unwrap()
}

/// The daemon counted as many answers as callers had, and nothing else.
pub(crate) async fn all_were_delivered(daemon: &Daemon, requests: usize) {
    let status = daemon.caller().get("/lovable/v1/status").await.json();
    let count = |name: &str| status["requests"][name].as_u64().unwrap();
    assert_eq!(count("delivered") + count("resumed"), requests as u64, "{status}");
    assert_eq!(count("total"), requests as u64, "{status}");
}
