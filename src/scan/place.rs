//! From listeners to places that can be asked, and what changed among them.
//!
//! Pure. A listener says where it takes connections; a place is the one address
//! by which we would reach it, with everything that listens there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{scan::table::Listener, server::Endpoint};

/// What listens at one endpoint. Several sockets there belong to one user: the
/// kernel lets nobody else join a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its port.
    pub(super) port: u16,
    /// Whose sockets these are.
    pub(super) uid: u32,
    /// The sockets.
    pub(super) inodes: Vec<u64>,
}

impl Place {
    /// Whether these are still the same sockets, or some of them: a server
    /// whose workers share a port may replace one.
    fn is_still(&self, other: &Self) -> bool {
        self.uid == other.uid && self.inodes.iter().any(|it| other.inodes.contains(it))
    }
}

/// All places where somebody listens.
pub(super) type Places = BTreeMap<Endpoint, Place>;

/// The places of these listeners, without our own doors and what `asked` rules out.
pub(super) fn places(listeners: &[Listener], own: &[SocketAddr], asked: impl Fn(u16) -> bool) -> Places {
    let takes_v4 = |port| {
        let loopback = |ip: IpAddr| matches!(reached_at(ip), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        move |it: &Listener| it.port == port && loopback(it.ip)
    };
    let mut places = Places::new();
    for listener in listeners.iter().filter(|it| asked(it.port)) {
        let Some(mut ip) = reached_at(listener.ip) else {
            continue;
        };
        // `[::]` usually takes IPv4 as well; then its IPv4 address is the one
        // to use, since half of the tools and texts know no other.
        let any_v6 = listener.ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if any_v6 && !listener.v6_only && !listeners.iter().any(takes_v4(listener.port)) {
            ip = Ipv4Addr::LOCALHOST.into();
        }
        if own.iter().any(|it| it.port() == listener.port && reached_at(it.ip()) == Some(ip)) {
            continue;
        }
        let place = places.entry(Endpoint::tcp(ip, listener.port)).or_insert_with(|| Place {
            port: listener.port,
            uid: listener.uid,
            inodes: Vec::new(),
        });
        place.inodes.push(listener.inode);
    }
    places
}

/// Whose socket takes connections to this address.
pub(super) fn owner(listeners: &[Listener], ip: IpAddr, port: u16) -> Option<u32> {
    let ip = ip.to_canonical();
    let there = || listeners.iter().filter(|it| it.port == port);
    let all_of = |v4: bool| there().filter(move |it| it.ip.is_unspecified() && it.ip.is_ipv4() == v4);
    // The kernel prefers the socket that is bound to exactly this address, then
    // one that takes all of its family, then one that takes both families.
    let exact = there().find(|it| it.ip.to_canonical() == ip);
    let family = || all_of(ip.is_ipv4()).next();
    let both = || all_of(false).find(|it| ip.is_ipv4() && !it.v6_only);
    exact.or_else(family).or_else(both).map(|it| it.uid)
}

/// The address by which a socket bound to `ip` is reached from this machine.
fn reached_at(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        // A link-local address is none without its interface.
        IpAddr::V6(ip) if ip.is_unicast_link_local() => None,
        ip => Some(ip),
    }
}

/// What is different now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Nobody, or somebody else, listens there.
    pub(super) gone: Vec<Endpoint>,
    /// Somebody new listens there.
    pub(super) new: Vec<Endpoint>,
}

/// Compares the places before with the places now.
pub(super) fn difference(before: &Places, now: &Places) -> Difference {
    let stays = |endpoint: &Endpoint, place: &Place, there: &Places| {
        there.get(endpoint).is_some_and(|it| it.is_still(place))
    };
    let missing = |from: &Places, there: &Places| {
        let missing = from.iter().filter(|(endpoint, place)| !stays(endpoint, place, there));
        missing.map(|(endpoint, _)| endpoint.clone()).collect()
    };
    Difference { gone: missing(before, now), new: missing(now, before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(at: &str, inode: u64) -> Listener {
        let (at, v6_only) = match at.strip_suffix(" only") {
            Some(at) => (at, true),
            None => (at, false),
        };
        let at: SocketAddr = at.parse().unwrap();
        Listener { ip: at.ip(), port: at.port(), uid: 1000, inode, v6_only }
    }

    fn check(listeners: &[&str], expected: &[&str]) {
        let listeners: Vec<_> = listeners.iter().zip(1..).map(|(at, inode)| listener(at, inode)).collect();
        let own = ["127.0.0.1:7777".parse().unwrap()];
        let found = places(&listeners, &own, |port| port != 22);
        let found: Vec<_> = found.keys().map(ToString::to_string).collect();
        assert_eq!(found, expected, "for {listeners:?}");
    }

    #[test]
    fn each_listener_is_reached_at_one_address() {
        check(&["127.0.0.1:11434"], &["http://127.0.0.1:11434"]);
        check(&["0.0.0.0:8000"], &["http://127.0.0.1:8000"]);
        check(&["[::]:8000"], &["http://127.0.0.1:8000"]);
        check(&["[::]:8000 only"], &["http://[::1]:8000"]);
        check(&["[::1]:8000"], &["http://[::1]:8000"]);
        check(&["127.0.0.1:8000", "[::]:8000 only"], &["http://127.0.0.1:8000", "http://[::1]:8000"]);
        check(&["0.0.0.0:8000", "[::]:8000"], &["http://127.0.0.1:8000", "http://[::1]:8000"]);
        check(&["127.0.0.53:8000", "10.0.0.5:8000"], &["http://10.0.0.5:8000", "http://127.0.0.53:8000"]);
        check(&["[::ffff:127.0.0.1]:8000"], &["http://127.0.0.1:8000"]);
        check(&["[fe80::1]:8000", "0.0.0.0:22"], &[]);
    }

    #[test]
    fn an_address_has_the_owner_of_the_socket_that_takes_it() {
        let listeners: Vec<_> =
            [("127.0.0.1:1", 10), ("0.0.0.0:1", 11), ("[::]:1", 12), ("[::]:2", 13), ("[::]:3 only", 14)]
                .iter()
                .map(|(at, uid)| Listener { uid: *uid, ..listener(at, 1) })
                .collect();
        let owner = |at: &str| {
            let at: SocketAddr = at.parse().unwrap();
            owner(&listeners, at.ip(), at.port())
        };
        assert_eq!(owner("127.0.0.1:1"), Some(10));
        assert_eq!(owner("127.0.0.2:1"), Some(11));
        assert_eq!(owner("[::1]:1"), Some(12));
        assert_eq!(owner("127.0.0.1:2"), Some(13));
        assert_eq!(owner("[::1]:3"), Some(14));
        assert_eq!(owner("127.0.0.1:3"), None);
        assert_eq!(owner("127.0.0.1:4"), None);
    }

    #[test]
    fn our_own_door_is_no_place() {
        check(&["127.0.0.1:7777", "[::1]:7777"], &["http://[::1]:7777"]);
        check(&["0.0.0.0:7777"], &[]);
    }

    #[test]
    fn a_new_socket_on_the_same_port_is_gone_and_new() {
        let at = |listeners: &[Listener]| places(listeners, &[], |_| true);
        let endpoint = Endpoint::parse("http://127.0.0.1:8000").unwrap();
        let before = at(&[listener("127.0.0.1:8000", 1)]);
        let both = Difference { gone: vec![endpoint.clone()], new: vec![endpoint.clone()] };

        assert_eq!(difference(&before, &before), Difference::default());
        assert_eq!(difference(&before, &at(&[listener("127.0.0.1:8000", 2)])), both);
        let shared = at(&[listener("127.0.0.1:8000", 1), listener("127.0.0.1:8000", 2)]);
        assert_eq!(difference(&before, &shared), Difference::default());
        let other_owner = Listener { uid: 1001, ..listener("127.0.0.1:8000", 1) };
        assert_eq!(difference(&before, &at(&[other_owner])), both);
        assert_eq!(difference(&before, &at(&[])), Difference { gone: vec![endpoint], new: vec![] });
    }
}
