//! Servers as they are shown: `GET /lovable/v1/servers`.

use serde::{Deserialize, Serialize};

use super::{FaultView, Percentiles, rfc3339};
use crate::{
    registry::{Admission, Server, Standing, Word},
    server::{Check, KindId, ModelName, Pin, Problem, ServerId, Source, Zone},
};

/// All servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerList {
    /// The servers, in the order of their ids.
    pub servers: Vec<ServerView>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its id.
    pub id: ServerId,
    /// Its kind.
    pub kind: KindId,
    /// A name that the person gave it.
    pub name: Option<String>,
    /// Its version as it says it.
    pub version: Option<String>,
    /// Where it is asked.
    pub url: String,
    /// Where requests to it end up.
    pub zone: Zone,
    /// Health.
    pub standing: Standing,
    /// What the person allows.
    pub admission: Admission,
    /// Why it cannot serve though it is well.
    pub problem: Option<Problem>,
    /// Whether it says that it is simulated.
    pub simulated: bool,
    /// How we know of it.
    pub found_by: Vec<Source>,
    /// What was trusted, where a person said so.
    pub trust: Option<Trust>,
    /// Names of its models.
    pub models: Vec<ModelName>,
    /// Names of those that are in memory; `null` where the kind does not tell.
    pub loaded: Option<Vec<ModelName>>,
    /// Requests that it works on for us.
    pub in_flight: u32,
    /// Requests that wait for it.
    pub queued: u32,
    /// How many it may have at once.
    pub limit: Option<u32>,
    /// Lower is asked first.
    #[serde(default)]
    pub priority: i32,
    /// Its share of the requests beside others of its priority, where records in DNS give it one.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Whole answers.
    pub latency_ms: Percentiles,
    /// First content.
    pub first_token_ms: Percentiles,
    /// Tokens of answers per second, once they come.
    pub tokens_per_second: Option<f64>,
    /// Attempts that went well, of all that count.
    pub success_rate: Option<f64>,
    /// When it last answered.
    pub last_seen: Option<String>,
    /// Since when it has this standing.
    pub since: String,
    /// What went wrong last.
    pub last_fault: Option<FaultView>,
}

/// What a person trusted: this address, this kind, this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Address.
    pub address: String,
    /// Kind.
    pub kind: KindId,
    /// Pin of its TLS key.
    pub tls_pin: Option<Pin>,
}

impl Trust {
    /// What a person has said of a server, even if it is not that any more; or the key that the
    /// configuration pins.
    fn of(server: &Server) -> Option<Self> {
        let bond = server.word.as_ref().and_then(Word::bond);
        let pinned = match server.bounds.check {
            Check::Pin(pin) => Some(pin),
            Check::Authorities | Check::Nobody => None,
        };
        if bond.is_none() && pinned.is_none() {
            return None;
        }
        Some(Self {
            address: server.endpoint.to_string(),
            kind: bond.and_then(|it| it.kind.clone()).unwrap_or_else(|| server.kind.clone()),
            tls_pin: bond.and_then(|it| it.tls_pin).or(pinned),
        })
    }
}

/// What changes too fast for the registry: counted and measured by others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveFigures {
    /// Requests that it works on for us.
    pub in_flight: u32,
    /// Requests that wait for it.
    pub queued: u32,
    /// How many it may have at once, by what it turned away too.
    pub limit: Option<u32>,
    /// Whole answers.
    pub latency_ms: Percentiles,
    /// First content.
    pub first_token_ms: Percentiles,
    /// Tokens of answers per second.
    pub tokens_per_second: Option<f64>,
    /// Attempts that went well, of all that count.
    pub success_rate: Option<f64>,
}

impl ServerView {
    /// A server of the registry with its figures of this moment.
    pub fn of(server: &Server, live: &LiveFigures) -> Self {
        let told = server.models.iter().any(|it| it.loaded.is_some());
        let loaded = server.models.iter().filter(|it| it.loaded == Some(true));
        Self {
            id: server.id.clone(),
            kind: server.kind.clone(),
            name: server.name.clone(),
            version: server.version.clone(),
            url: server.endpoint.to_string(),
            zone: server.zone,
            standing: server.standing,
            admission: server.admission,
            problem: server.problem,
            simulated: server.simulated,
            found_by: server.found_by.iter().copied().collect(),
            trust: Trust::of(server),
            models: server.models.iter().map(|it| it.name.clone()).collect(),
            loaded: (told || server.models.is_empty()).then(|| loaded.map(|it| it.name.clone()).collect()),
            in_flight: live.in_flight,
            queued: live.queued,
            limit: live.limit.or(server.limit),
            priority: server.priority,
            weight: server.weight,
            latency_ms: live.latency_ms,
            first_token_ms: live.first_token_ms,
            tokens_per_second: live.tokens_per_second,
            success_rate: live.success_rate,
            last_seen: server.last_seen_ms.map(rfc3339),
            since: rfc3339(server.since_ms),
            last_fault: server.last_fault.as_ref().map(FaultView::from),
        }
    }

    /// What a person wants to know first: what they decided, else what hinders it, else its health.
    pub fn state(&self) -> &'static str {
        match (self.admission, self.problem, self.standing) {
            (Admission::Draining, _, _) => "draining",
            (Admission::Untrusted, _, _) => "untrusted",
            (Admission::Off, _, _) => "off",
            (Admission::Open, _, Standing::Down) => "down",
            (Admission::Open, Some(Problem::NeedsKey), _) => "needs a key",
            (Admission::Open, Some(Problem::Loading), _) => "loading",
            (Admission::Open, Some(Problem::WrongHost), _) => "wrong host",
            (Admission::Open, Some(Problem::Unhealthy), _) => "unhealthy",
            (
                Admission::Open,
                Some(Problem::ChangedKind | Problem::ChangedKey | Problem::ChangedOwner),
                _,
            ) => "changed",
            (Admission::Open, None, Standing::Up) => "up",
            (Admission::Open, None, Standing::Suspect) => "suspect",
            (Admission::Open, None, Standing::Trial) => "trial",
        }
    }
}

/// The body of `POST /lovable/v1/servers/{id}/trust`, which may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustServer {
    /// Which TLS key the server has to have.
    #[serde(default)]
    pub pin: PinWish,
}

/// A TLS key that a server has to have to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PinWish {
    /// The one that it shows now; else any that is vouched for.
    Shown(bool),
    /// This one.
    Key(Pin),
}

impl Default for PinWish {
    fn default() -> Self {
        Self::Shown(false)
    }
}

/// The body of `POST /lovable/v1/servers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddServer {
    /// Its base URL.
    pub url: String,
}

/// The reply to it: what is at that address, as far as it was recognised in a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Added {
    /// The address as it was understood.
    pub url: String,
    /// The server there; `null` while nothing is recognised, which is asked again from time to time.
    pub server: Option<ServerView>,
}
