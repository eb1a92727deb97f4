//! What the registry is told before anything is seen: settings, and who told of an address.

use std::time::Duration;

use crate::server::{Endpoint, KindId, Source, Zone};

/// How the registry works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a server that is well is asked for its models.
    pub every: Duration,
    /// A server that was down for so long, and that no person named, is forgotten.
    pub forget_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A model pulled now is in the list when the person has typed its name.
            every: Duration::from_secs(10),
            // Somebody back from a holiday finds the servers they left.
            forget_after: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// What a person says about a server at some address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its name.
    pub name: Option<String>,
    /// Its kind, believed where recognition comes to nothing better than "OpenAI-compatible".
    pub kind: Option<KindId>,
    /// Lower is asked first.
    pub priority: i32,
    /// How many requests it may have at once.
    pub limit: Option<u32>,
    /// Where requests to it end up.
    pub zone: Option<Zone>,
    /// Whether it is used at all.
    pub enabled: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { name: None, kind: None, priority: 0, limit: None, zone: None, enabled: true }
    }
}

/// Somebody told of an address.
#[derive(Clone, Debug)]
pub struct Hint {
    /// The address.
    pub endpoint: Endpoint,
    /// Who told.
    pub source: Source,
    /// Whether that vouches for it: `false` for a listener of another ordinary
    /// user, and outside this machine for what no person said they trust.
    pub trusted: bool,
    /// What a person says about the server there.
    pub settings: Option<ServerSettings>,
}
