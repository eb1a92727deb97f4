//! What everyone but the registry sees of a server, and the changes that say what became of it.
//!
//! These are plain values: `Snapshot` is what readers hold, and `Snapshot::apply`
//! is the whole meaning of a `Change`.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{
    fault::Fault,
    registry::{
        lack::{Lack, Work},
        trust::Word,
    },
    server::{Bounds, Endpoint, KindId, Model, ModelName, Problem, ServerId, Source, Zone},
};

/// The two clocks: one for waiting, one for records.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub at: Instant,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// Health, fed by probes and live requests alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It answers.
    Up,
    /// It failed lately, or was not seen since we started.
    Suspect,
    /// It failed at requests while its probes go well: one request at a time may try it.
    Trial,
    /// It failed again and again, or is gone.
    Down,
}

/// What the person allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// It may be used.
    Open,
    /// It finishes what it has and gets nothing new.
    Draining,
    /// Nobody has said that it may be trusted.
    Untrusted,
    /// It is switched off.
    Off,
}

/// The last thing that went wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFault {
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// A server as everyone but the registry sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// A name that the person gave it.
    pub name: Option<String>,
    /// Its version as it says it.
    pub version: Option<String>,
    /// Where it is asked.
    pub endpoint: Endpoint,
    /// Other addresses under which the same server was seen.
    pub also_at: Vec<Endpoint>,
    /// Where requests to it end up.
    pub zone: Zone,
    /// How far a connection for them may go, and who has to be there.
    #[serde(skip)]
    pub bounds: Bounds,
    /// What a person said of it, if anything.
    #[serde(default)]
    pub word: Option<Word>,
    /// Health.
    pub standing: Standing,
    /// Permission.
    pub admission: Admission,
    /// Why it cannot serve though it is well.
    pub problem: Option<Problem>,
    /// Whether it says that it is simulated.
    pub simulated: bool,
    /// How we know of it.
    pub found_by: BTreeSet<Source>,
    /// The names that it is announced under in the network. They are nobody's proof.
    #[serde(default)]
    pub announced_as: BTreeSet<String>,
    /// The instance id of a lovable; `None` for every other kind.
    #[serde(default)]
    pub instance: Option<String>,
    /// Its models, in the order of their names.
    pub models: Vec<Arc<Model>>,
    /// How many requests it may have at once; `None` when nobody knows.
    pub limit: Option<u32>,
    /// Lower is asked first. 0 unless configured.
    pub priority: i32,
    /// Its share of the requests, among those beside it; `None` where nobody gave it one.
    #[serde(default)]
    pub weight: Option<u16>,
    /// When it last answered, milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Since when it has this standing, milliseconds since 1970.
    pub since_ms: u64,
    /// What went wrong last.
    pub last_fault: Option<LastFault>,
    /// What it turned out to lack.
    #[serde(skip)]
    pub lacks: Vec<Lack>,
    /// Until when it wants to be left alone.
    #[serde(skip)]
    pub busy_until: Option<Instant>,
    /// When its next trial is due, while it is down; `None` while something
    /// else answers at its address, which must get no request at all.
    #[serde(skip)]
    pub trial_at: Option<Instant>,
}

impl Server {
    /// Whether it turned out to lack what this takes.
    pub fn lacks(&self, model: &ModelName, work: Work, now: Instant) -> bool {
        self.lacks.iter().any(|it| it.is_about(model, work, now))
    }

    /// Whether it takes `model` for one of its models.
    pub fn has(&self, model: &str) -> bool {
        self.models.iter().any(|it| it.answers_to(model))
    }
}

/// All servers at one moment, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The servers.
    pub servers: Vec<Arc<Server>>,
    /// Names of models that some server had since we started and may have no
    /// more: asking for one of these is no typo.
    pub formerly: Arc<BTreeSet<ModelName>>,
}

impl Snapshot {
    /// The server of that id.
    pub fn server(&self, id: &str) -> Option<&Arc<Server>> {
        self.servers.binary_search_by(|it| it.id.as_str().cmp(id)).ok().map(|at| &self.servers[at])
    }

    /// Takes a change over. Doing so with all changes in order gives the same servers.
    pub fn apply(&mut self, change: &Change) {
        let id = match change {
            Change::Server { server } => &server.id,
            Change::Forgotten { id, .. } => id,
        };
        let found = self.servers.binary_search_by(|it| it.id.cmp(id));
        match (change, found) {
            (Change::Server { server }, Ok(at)) => self.servers[at] = Arc::clone(server),
            (Change::Server { server }, Err(at)) => self.servers.insert(at, Arc::clone(server)),
            (Change::Forgotten { .. }, Ok(at)) => drop(self.servers.remove(at)),
            (Change::Forgotten { .. }, Err(_)) => {}
        }
    }
}

/// What changed. Applying all changes in order to an empty registry gives the same servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A server is new, or anything of it changed.
    Server {
        /// As it is now.
        server: Arc<Server>,
    },
    /// A server is gone for good.
    Forgotten {
        /// Its id, which no other server ever gets.
        id: ServerId,
        /// Where it was: the same kind found here again is the same server again.
        endpoint: Endpoint,
        /// What it was.
        kind: KindId,
    },
}
