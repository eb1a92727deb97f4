//! Where requests end up, and how far a connection may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Pin;

/// Where requests to a server end up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    /// They stay on this machine.
    #[default]
    Machine,
    /// They go to another machine of the local network.
    Lan,
    /// They go to somebody else's computer.
    Cloud,
}

impl Zone {
    /// Its word in headers and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Lan => "lan",
            Self::Cloud => "cloud",
        }
    }

    /// Where a connection to this address ends. What is not surely near is far.
    pub fn of(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        // To connect to the unspecified address is to connect to this machine.
        if ip.is_loopback() || ip.is_unspecified() {
            return Self::Machine;
        }
        let near = match ip {
            IpAddr::V4(ip) => is_near_v4(ip),
            IpAddr::V6(ip) => is_near_v6(ip),
        };
        if near { Self::Lan } else { Self::Cloud }
    }
}

/// Private, link-local, and the shared range that private overlay networks use.
fn is_near_v4(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0b1100_0000 == 64;
    ip.is_private() || ip.is_link_local() || shared
}

fn is_near_v6(ip: Ipv6Addr) -> bool {
    ip.is_unique_local() || ip.is_unicast_link_local()
}

/// How far a connection may go, and who has to be there. Without more said it stays on this
/// machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounds {
    /// The farthest that the address which a name stands for may be.
    pub reach: Zone,
    /// Who has to be there, where TLS is spoken.
    pub check: Check,
}

/// Who has to be at the other end of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Somebody whom an authority vouches for by that name.
    #[default]
    Authorities,
    /// Whoever has this key, and nobody else.
    Pin(Pin),
    /// Anybody: for questions that may be answered by anybody, and hold no secret.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_surely_near_is_far() {
        for (text, zone) in [
            ("127.0.0.1", Zone::Machine),
            ("127.9.9.9", Zone::Machine),
            ("::1", Zone::Machine),
            ("0.0.0.0", Zone::Machine),
            ("::", Zone::Machine),
            ("::ffff:127.0.0.1", Zone::Machine),
            ("10.1.2.3", Zone::Lan),
            ("172.16.0.1", Zone::Lan),
            ("192.168.1.2", Zone::Lan),
            ("169.254.1.2", Zone::Lan),
            ("100.100.1.2", Zone::Lan),
            ("::ffff:10.0.0.1", Zone::Lan),
            ("fd00::7", Zone::Lan),
            ("fe80::7", Zone::Lan),
            ("172.32.0.1", Zone::Cloud),
            ("100.128.0.1", Zone::Cloud),
            ("8.8.8.8", Zone::Cloud),
            ("::ffff:8.8.8.8", Zone::Cloud),
            ("64:ff9b::8.8.8.8", Zone::Cloud),
            ("2002:0808:0808::1", Zone::Cloud),
            ("2001:db8::1", Zone::Cloud),
            ("224.0.0.1", Zone::Cloud),
            ("255.255.255.255", Zone::Cloud),
        ] {
            assert_eq!(Zone::of(text.parse().unwrap()), zone, "{text}");
        }
    }
}
