//! What the registry is told before anything is seen: settings, and who told of an address.

use std::{collections::BTreeMap, time::Duration};

use super::{Listing, Lookup, Server, Trust, id};
use crate::{
    kind,
    server::{Endpoint, KindId, Pin, Source, Zone},
};

/// How the registry works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a server that is well is asked for its models while somebody wants something.
    pub every: Duration,
    /// A server that was down for so long, and that no person named, is forgotten.
    pub forget_after: Duration,
    /// What the person says of the cloud.
    pub cloud: Cloud,
    /// Whom the person trusts, whoever found it.
    pub trust: Vec<Trust>,
}

impl Settings {
    /// Whether a rule of the person covers an address, or a name under which it is listed.
    pub(super) fn covers(&self, endpoint: &Endpoint, listed: &BTreeMap<Lookup, Listing>) -> bool {
        let by_name = |rule: &Trust| listed.keys().any(|it| rule.covers_name(&it.name, endpoint.port()));
        self.trust.iter().any(|it| it.covers(endpoint) || by_name(it))
    }
}

/// What the person says of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloud {
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Zones of servers that the person named, where the address alone does not tell them or
    /// they are in the cloud.
    pub zones: BTreeMap<Endpoint, Zone>,
}

impl Cloud {
    /// Where requests to this address end up.
    pub fn zone(&self, endpoint: &Endpoint) -> Zone {
        self.zones.get(endpoint).copied().unwrap_or_else(|| id::zone(endpoint))
    }

    /// Whether nobody may so much as connect there: to who sells answers, and to what the
    /// person named and is in the cloud. Who adds an address by hand wants it to be asked.
    pub fn bars(&self, endpoint: &Endpoint) -> bool {
        let named = self.zones.get(endpoint) == Some(&Zone::Cloud);
        !self.enabled && (named || kind::sells(endpoint))
    }

    /// Whether what was stored of a server is not to be believed, and its address not asked.
    pub(super) fn bars_stored(&self, server: &Server) -> bool {
        let is_said = self.zones.get(&server.endpoint) == Some(&Zone::Cloud);
        let is_sold = kind::provider(server.kind.as_str()).is_some() && !is_said;
        // A gateway that was found here is known for what it is, and so is what a person has
        // said a word of.
        let is_named = |it: &Source| matches!(it, Source::Config | Source::Environment);
        let was_named =
            server.zone == Zone::Cloud && server.word.is_none() && server.found_by.iter().all(is_named);
        is_sold || self.bars(&server.endpoint) || (!self.enabled && was_named)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // A model pulled now is in the list when the person has typed its name.
            every: Duration::from_secs(10),
            // Somebody back from a holiday finds the servers they left.
            forget_after: Duration::from_secs(30 * 24 * 3600),
            cloud: Cloud::default(),
            trust: Vec::new(),
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
    /// The TLS key that it has to show, whoever vouches for another.
    pub pin: Option<Pin>,
    /// Whether it is used at all.
    pub enabled: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { name: None, kind: None, priority: 0, limit: None, zone: None, pin: None, enabled: true }
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
    /// user, and outside this machine for what no person named. Rules of the person
    /// count beside it.
    pub trusted: bool,
    /// What a person says about the server there.
    pub settings: Option<ServerSettings>,
}
