//! How the daemon is: `GET /lovable/v1/status`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::HardwareView;
use crate::registry::{Admission, Snapshot, Standing};

/// Whether the daemon can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All is well.
    Ok,
    /// It answers, but something is missing; the reasons say what.
    Degraded,
    /// No request can be served.
    Down,
}

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of lovable.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// For how long it has been running.
    pub uptime_seconds: u64,
    /// Where its socket is.
    pub socket: String,
    /// Where it listens on TCP, if it does.
    pub listen: Option<String>,
    /// Whether some server is usable.
    pub ready: bool,
    /// Whether it can do its work.
    pub health: Health,
    /// Why the health is not `ok`, in sentences.
    pub reasons: Vec<String>,
    /// Servers.
    pub servers: ServerCounts,
    /// Models.
    pub models: ModelCounts,
    /// Requests since the daemon started.
    pub requests: RequestCounts,
    /// What is kept across restarts.
    pub store: StoreView,
    /// Whether outcomes are stored.
    pub tracking: bool,
    /// How sending them to a shared database goes; `null` where none is named.
    #[serde(default)]
    pub postgres: Option<PostgresView>,
    /// How it goes with the collector of traces; `null` where none is named.
    #[serde(default)]
    pub otlp: Option<OtlpView>,
    /// How the lookups in DNS stand that the configuration names.
    #[serde(default)]
    pub lookups: Vec<LookupView>,
    /// What the cloud costs; `null` while it is not enabled.
    pub cloud: Option<CloudView>,
    /// Processor, memory and GPU; `null` until measured.
    pub hardware: Option<HardwareView>,
}

/// A lookup in DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupView {
    /// The name that is looked up, with the port where servers are at its addresses.
    pub name: String,
    /// How many servers it lists, as far as that holds.
    pub servers: usize,
    /// What is wrong with it; `null` when nothing is.
    pub trouble: Option<String>,
}

impl LookupView {
    /// Why it keeps all from being well.
    pub fn reason(&self) -> Option<String> {
        self.trouble.as_ref().map(|trouble| format!("the DNS lookup of {}: {trouble}", self.name))
    }
}

/// How it goes with a shared database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresView {
    /// Host, port and database.
    pub database: String,
    /// Whether it takes what it is sent.
    pub ok: bool,
    /// How many outcomes are not there yet, at the most.
    pub waiting: u64,
    /// How many it refused, which are not sent again, since this daemon started or the database was named.
    pub refused: u64,
    /// Whether some were deleted here, for lack of space, before they could be sent.
    pub deleted_unsent: bool,
    /// Why it takes nothing: a word for programs (`unreachable`, `login`, ...).
    pub problem: Option<String>,
    /// Since when.
    pub since: Option<String>,
}

/// How it goes with the collector that requests are told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtlpView {
    /// Whether it took what it got last.
    pub ok: bool,
    /// Requests that wait for it.
    pub waiting: u64,
    /// Requests that it will never hear of.
    pub dropped: u64,
}

/// What the cloud costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloudView {
    /// What counts today (a day of UTC): what was spent, and the most that running requests and
    /// those of a daemon that died can have cost.
    pub spent_today_usd: f64,
    /// The limit of a day; `null` where there is none.
    pub daily_usd: Option<f64>,
}

/// How many servers are in which state. Standing is counted for those that
/// may be used; a server on trial counts as suspect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCounts {
    /// They answer.
    pub up: u32,
    /// They failed lately, or are on trial.
    pub suspect: u32,
    /// They do not answer.
    pub down: u32,
    /// Nobody has said that they may be trusted.
    pub untrusted: u32,
    /// They get nothing new.
    pub draining: u32,
}

impl ServerCounts {
    /// Counts the servers of a snapshot. One that is switched off is not counted.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut counts = Self::default();
        for server in &snapshot.servers {
            let counter = match (server.admission, server.standing) {
                (Admission::Off, _) => continue,
                (Admission::Untrusted, _) => &mut counts.untrusted,
                (Admission::Draining, _) => &mut counts.draining,
                (Admission::Open, Standing::Up) => &mut counts.up,
                (Admission::Open, Standing::Suspect | Standing::Trial) => &mut counts.suspect,
                (Admission::Open, Standing::Down) => &mut counts.down,
            };
            *counter += 1;
        }
        counts
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.up + self.suspect + self.down + self.untrusted + self.draining
    }
}

/// How many different models there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCounts {
    /// Names that can be asked for.
    pub available: u32,
    /// Those that are in memory somewhere.
    pub loaded: u32,
}

impl ModelCounts {
    /// Counts the models of the servers that may be asked.
    pub fn of(snapshot: &Snapshot) -> Self {
        let (mut available, mut loaded) = (BTreeSet::new(), BTreeSet::new());
        for server in snapshot.servers.iter().filter(|it| super::model::may_be_asked(it)) {
            for model in &server.models {
                available.insert(&model.name);
                if model.loaded == Some(true) {
                    loaded.insert(&model.name);
                }
            }
        }
        let count = |set: BTreeSet<_>| u32::try_from(set.len()).unwrap_or(u32::MAX);
        Self { available: count(available), loaded: count(loaded) }
    }
}

/// Requests since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// Being answered now.
    pub in_flight: u64,
    /// Waiting for a server.
    pub queued: u64,
    /// All that ended.
    pub total: u64,
    /// The whole answer of one server went to the caller.
    pub delivered: u64,
    /// The whole answer went to the caller, from more than one server.
    pub resumed: u64,
    /// The answer had begun and could not be finished.
    pub cut_short: u64,
    /// Turned down.
    pub refused: u64,
    /// Every candidate failed.
    pub exhausted: u64,
    /// The deadline passed before content came.
    pub out_of_time: u64,
    /// The caller left.
    pub caller_gone: u64,
    /// Attempts whose fault the caller did not notice.
    pub attempts_failed_over: u64,
}

/// What is kept across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Its directory.
    pub path: Option<String>,
    /// Its size on disk.
    pub bytes: Option<u64>,
    /// Whether it works.
    pub ok: bool,
    /// Records that could not be written.
    pub dropped: u64,
}
