//! Many requests at once, each judged, and counted by what it was worth.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;

use crate::caller::{Answer, Caller, Verdict, exchange, request};

/// An answer that has no end by then never has one.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of many requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) whole: usize,
    pub(crate) broken_off: usize,
    pub(crate) refused: BTreeMap<u16, usize>,
    /// What nobody should ever see, in words; the first few.
    pub(crate) wrong: Vec<String>,
    pub(crate) wrongs: usize,
}

impl Tally {
    /// Requests that failed before their first content, or in a way that none should.
    pub(crate) fn failures(&self) -> usize {
        self.refused.values().sum::<usize>() + self.wrongs
    }

    fn add(&mut self, verdict: Verdict, words: Option<usize>) {
        match verdict {
            Verdict::Whole(count) if words.is_none_or(|words| words == count) => self.whole += 1,
            Verdict::Whole(count) => self.add(Verdict::Wrong(format!("{count} words")), None),
            // Nothing had come: that is a failure before the first content.
            Verdict::BrokenOff(0) => {
                self.add(Verdict::Wrong("broken off before the first word".into()), None)
            }
            Verdict::BrokenOff(_) => self.broken_off += 1,
            Verdict::Refused(status) => *self.refused.entry(status).or_default() += 1,
            Verdict::Wrong(why) => {
                self.wrongs += 1;
                if self.wrong.len() < 5 {
                    self.wrong.push(why);
                }
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.whole += other.whole;
        self.broken_off += other.broken_off;
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.wrongs += other.wrongs;
        self.wrong.extend(other.wrong);
        self.wrong.truncate(5);
    }
}

/// Many equal chat requests.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) caller: Caller,
    pub(crate) body: Value,
    pub(crate) requests: usize,
    pub(crate) at_once: usize,
    /// The words that a whole answer has; `None` where that is not known.
    pub(crate) words: Option<usize>,
    /// How an answer is judged.
    pub(crate) judge: fn(&Answer) -> Verdict,
}

impl Load {
    /// Sends all of them over kept connections and counts.
    pub(crate) async fn run(self) -> Tally {
        let left = Arc::new(AtomicUsize::new(self.requests));
        let workers = (0..self.at_once).map(|_| tokio::spawn(work(self.clone(), left.clone())));
        let mut tally = Tally::default();
        for worker in workers.collect::<Vec<_>>() {
            tally.merge(worker.await.unwrap());
        }
        tally
    }
}

async fn work(load: Load, left: Arc<AtomicUsize>) -> Tally {
    let body = load.body.to_string();
    let mut tally = Tally::default();
    let mut connection = None;
    while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
        if connection.is_none() {
            connection = load.caller.connect().await.ok();
        }
        let Some(open) = &mut connection else {
            tally.add(Verdict::Wrong("the daemon does not take connections".into()), None);
            continue;
        };
        let request = request("POST", "/v1/chat/completions", body.clone().into(), &[]);
        let verdict = match timeout(PATIENCE, exchange(open, request)).await {
            Ok(Ok(answer)) => (load.judge)(&answer),
            Ok(Err(error)) => Verdict::Wrong(format!("no answer: {error:?}")),
            Err(_) => Verdict::Wrong("no end of the answer in time".to_owned()),
        };
        // After an odd end the connection may be unusable.
        if !matches!(verdict, Verdict::Whole(_)) {
            connection = None;
        }
        tally.add(verdict, load.words);
    }
    tally
}
