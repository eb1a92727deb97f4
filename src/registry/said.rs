//! What the person says in writing, and what follows when they say something else.
//!
//! Configuration and environment are told as a whole, at the start and after each edit. What
//! they do not say any more holds no longer, from this event on: trust above all.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Change, Cloud, Hint, Now, Registry};
use crate::server::{Address, Endpoint, ServerId};

/// All that the configuration and the environment say about servers.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Of the cloud.
    pub cloud: Cloud,
    /// Whom they trust, whoever found it.
    pub trust: Vec<Trust>,
    /// The servers that they name.
    pub named: Vec<Hint>,
}

/// Who may be trusted: a network, a host, or one port of a host.
///
/// Names are compared with the name that a server is asked by, never with what it or anybody
/// else says that some address is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All addresses whose first bits are these.
    Network {
        /// The first address.
        ip: IpAddr,
        /// How many bits count.
        bits: u8,
    },
    /// All hosts whose names end in this, on one port or on any.
    Names {
        /// With its dot, in small letters: `.lab.example`.
        end: String,
        /// `None` is any port.
        port: Option<u16>,
    },
    /// A host by name or address, on one port or on any.
    Host {
        /// Name or address, in small letters.
        host: String,
        /// `None` is any port.
        port: Option<u16>,
    },
}

impl Trust {
    /// Whether this endpoint is meant.
    pub fn covers(&self, endpoint: &Endpoint) -> bool {
        let Address::Tcp { host, port, .. } = endpoint.address() else { return false };
        match self {
            Self::Network { ip, bits } => host.parse::<IpAddr>().is_ok_and(|it| same_network(it, *ip, *bits)),
            Self::Names { .. } => host.parse::<IpAddr>().is_err() && self.covers_name(host, Some(*port)),
            Self::Host { host: trusted, port: only } => {
                let same = trusted == host
                    || (trusted == "localhost" && endpoint.ip().is_some_and(|it| it.is_loopback()));
                same && only.is_none_or(|it| it == *port)
            }
        }
    }
}

impl Trust {
    /// Whether this name is meant, which nobody but the person gave.
    pub(super) fn covers_name(&self, name: &str, port: Option<u16>) -> bool {
        let (is_it, only) = match self {
            Self::Network { .. } => return false,
            Self::Names { end, port } => (name.len() > end.len() && name.ends_with(end.as_str()), *port),
            Self::Host { host, port } => (host == name, *port),
        };
        is_it && (only.is_none() || only == port)
    }
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

impl Registry {
    /// The person says this from now on, and nothing that they said before. Addresses that are
    /// new, that are of another kind now or that a person may just have mended become due.
    pub fn on_said(&mut self, said: Said, now: Now) -> Vec<Change> {
        let Said { cloud, trust, named } = said;
        self.settings.cloud = cloud;
        self.settings.trust = trust;
        let mut changes = Vec::new();
        self.leave_the_cloud(&mut changes);
        let mut named: BTreeMap<Endpoint, Hint> =
            named.into_iter().map(|it| (it.endpoint.clone(), it)).collect();
        named.retain(|endpoint, _| !self.settings.cloud.bars(endpoint));
        for endpoint in named.keys() {
            self.places.get_or_insert(endpoint, now.at);
        }
        for (endpoint, place) in self.places.iter_mut() {
            let hint = named.get(endpoint);
            let server = place.server.as_ref().and_then(|it| self.servers.get(it));
            let is_well = server.is_some_and(|it| it.is_well());
            let kind = |settings: Option<&super::ServerSettings>| settings.and_then(|it| it.kind.clone());
            let other_kind = kind(place.settings.as_ref()) != kind(hint.and_then(|it| it.settings.as_ref()));
            let ruled = self.settings.covers(endpoint, &place.listed);
            let was_named = place.is_in_writing();
            place.on_person(endpoint, self.watched, ruled, hint);
            if hint.is_some() && (other_kind || !was_named) {
                place.wake(now.at);
            } else if hint.is_some() && !is_well {
                place.rouse(now.at);
            }
        }
        let ids: Vec<ServerId> = self.servers.keys().cloned().collect();
        for id in ids {
            self.refresh(&id, now, &mut changes);
        }
        let idle =
            self.places.iter().filter(|(_, place)| place.is_idle()).map(|(endpoint, _)| endpoint.clone());
        idle.collect::<Vec<_>>().iter().for_each(|it| self.places.remove(it));
        self.told(changes)
    }

    /// Lets go of what may not be asked any more. It was used while that was allowed; its id
    /// stays its own.
    fn leave_the_cloud(&mut self, changes: &mut Vec<Change>) {
        let cloud = &self.settings.cloud;
        let barred = self.servers.values().filter(|it| cloud.bars_stored(&it.now));
        let barred: Vec<ServerId> = barred.map(|it| it.now.id.clone()).collect();
        for id in barred {
            let addresses = self.addresses(&id);
            self.remove(&id, changes);
            for endpoint in addresses {
                if let Some(place) = self.places.get_mut(&endpoint) {
                    place.let_go();
                }
            }
        }
        let cloud = &self.settings.cloud;
        for (_, place) in self.places.iter_mut().filter(|(endpoint, _)| cloud.bars(endpoint)) {
            place.let_go();
        }
    }
}
