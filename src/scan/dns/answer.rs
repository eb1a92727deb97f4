//! What an answer of DNS is worth: which addresses it lists, with which shares.
//!
//! Pure. A resolver may be wrong, or somebody's who wants us to ask for something else: an address
//! counts only where it can be that of another machine nearby, and an answer with more of them
//! than any fleet has counts as none. The tier and the weight of a record say who is asked, never
//! who is trusted; texts beside it (TXT) are not asked for at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use crate::{
    registry::{Listing, Listings},
    scan::near::is_near,
    server::{Endpoint, KindId},
};

/// The most addresses that a lookup may list. An answer over UDP has a few dozen, one over TCP
/// has room for some two thousand.
pub(super) const MOST: usize = 1024;

/// A host that an answer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Its addresses; it is one server all the same.
    pub(super) ips: Vec<IpAddr>,
    pub(super) port: u16,
    /// Lower is asked first.
    pub(super) priority: u16,
    pub(super) weight: u16,
}

/// All that was found, and for how long that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hosts: Vec<Host>,
    pub(super) ttl: Duration,
}

/// An answer as far as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) listings: Listings,
    pub(super) ttl: Duration,
    /// Hosts that it names and that are not asked.
    pub(super) left_out: usize,
}

/// Why there is no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody answered in time.
    Silent,
    /// It could not be asked, or would not answer; in its words.
    Failed(String),
    /// There is nothing of that name.
    Nothing,
    /// The name is an alias that leads nowhere.
    Astray,
    /// It lists more than any fleet has.
    TooMany(usize),
    /// It lists so many hosts, and none of them can be asked.
    NoneUsable(usize),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("the resolver does not answer in time"),
            Self::Failed(why) => write!(f, "the resolver fails: {why}"),
            Self::Nothing => f.write_str("the resolver has nothing of that name"),
            Self::Astray => f.write_str("the name is an alias that leads nowhere"),
            Self::TooMany(many) => {
                write!(f, "the answer lists {many} servers, and more than {MOST} count as none")
            }
            Self::NoneUsable(many) => write!(
                f,
                "none of the {many} addresses in the answer is asked: they are public, of this machine, \
                 nobody's, or at a port of other programs"
            ),
        }
    }
}

/// Which servers are listed. `own` are the addresses of this machine, on which servers are found
/// by their sockets.
pub(super) fn judge(
    found: &Found,
    kind: Option<&KindId>,
    own: &[IpAddr],
    may_ask: impl Fn(u16) -> bool,
) -> Result<Answer, Trouble> {
    if found.hosts.len() > MOST {
        return Err(Trouble::TooMany(found.hosts.len()));
    }
    let mut best: BTreeMap<Endpoint, (u16, u16)> = BTreeMap::new();
    let mut left_out = 0;
    for host in &found.hosts {
        let Some(endpoint) = address(host, own, &may_ask) else {
            left_out += 1;
            continue;
        };
        let entry = best.entry(endpoint).or_insert((host.priority, 0));
        match host.priority.cmp(&entry.0) {
            std::cmp::Ordering::Less => *entry = (host.priority, host.weight),
            std::cmp::Ordering::Equal => entry.1 = entry.1.saturating_add(host.weight),
            std::cmp::Ordering::Greater => {}
        }
    }
    if best.is_empty() {
        return Err(if left_out == 0 { Trouble::Nothing } else { Trouble::NoneUsable(left_out) });
    }
    let priorities: BTreeSet<u16> = best.values().map(|it| it.0).collect();
    let tiers: BTreeMap<u16, u16> = priorities.into_iter().zip(0..).collect();
    let weights = |priority: u16| best.values().filter(move |it| it.0 == priority).map(|it| it.1);
    // Weights that are all the same are no shares: whoever has least to do is asked.
    let says: BTreeSet<u16> =
        tiers.keys().copied().filter(|it| weights(*it).min() != weights(*it).max()).collect();
    let listing = |(priority, weight): (u16, u16)| Listing {
        tier: tiers.get(&priority).copied().unwrap_or_default(),
        weight: says.contains(&priority).then_some(weight),
        kind: kind.cloned(),
    };
    let listings = best.iter().map(|(endpoint, it)| (endpoint.clone(), listing(*it))).collect();
    Ok(Answer { listings, ttl: found.ttl, left_out })
}

/// The address at which a host is asked; always the same one of several.
fn address(host: &Host, own: &[IpAddr], may_ask: impl Fn(u16) -> bool) -> Option<Endpoint> {
    // One of link-local is of a network that DNS knows nothing of.
    let is_far_link = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
    let is_usable = |ip: &IpAddr| is_near(*ip) && !is_far_link(*ip) && !own.contains(ip);
    let ips = host.ips.iter().map(IpAddr::to_canonical).filter(is_usable);
    // IPv4 first: half of all servers listen on nothing else.
    let ip = ips.min().filter(|_| host.port != 0 && may_ask(host.port))?;
    Some(Endpoint::tcp(ip, host.port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(ips: &[&str], port: u16, priority: u16, weight: u16) -> Host {
        Host { ips: ips.iter().map(|it| it.parse().unwrap()).collect(), port, priority, weight }
    }

    fn found(hosts: Vec<Host>) -> Found {
        Found { hosts, ttl: Duration::from_secs(30) }
    }

    fn listed(hosts: Vec<Host>) -> Result<Vec<(String, u16, Option<u16>)>, Trouble> {
        let own = ["10.0.0.1".parse().unwrap()];
        let answer = judge(&found(hosts), None, &own, |port| port != 9100)?;
        let each = answer.listings.iter();
        Ok(each.map(|(endpoint, it)| (endpoint.to_string(), it.tier, it.weight)).collect())
    }

    #[test]
    fn one_server_for_each_host_at_an_address_that_stays_the_same() {
        assert_eq!(
            listed(vec![
                host(&["10.0.0.9", "10.0.0.7", "fd00::7"], 8000, 0, 0),
                host(&["fd00::8"], 8000, 0, 0),
            ]),
            Ok(vec![
                ("http://10.0.0.7:8000".to_owned(), 0, None),
                ("http://[fd00::8]:8000".to_owned(), 0, None)
            ])
        );
    }

    #[test]
    fn priorities_become_tiers_and_weights_count_where_they_differ() {
        assert_eq!(
            listed(vec![
                host(&["10.0.0.7"], 8000, 20, 5),
                host(&["10.0.0.8"], 8000, 10, 1),
                host(&["10.0.0.9"], 8000, 10, 3),
                host(&["10.0.0.10"], 8000, 20, 5),
                host(&["10.0.0.9"], 8000, 20, 9),
                host(&["10.0.0.9"], 8000, 10, 1),
            ]),
            Ok(vec![
                ("http://10.0.0.10:8000".to_owned(), 1, None),
                ("http://10.0.0.7:8000".to_owned(), 1, None),
                ("http://10.0.0.8:8000".to_owned(), 0, Some(1)),
                ("http://10.0.0.9:8000".to_owned(), 0, Some(4)),
            ])
        );
    }

    #[test]
    fn what_is_no_other_machine_nearby_is_left_out() {
        for ip in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "169.254.169.254",
            "169.254.7.7",
            "100.100.100.200",
            "fd00:ec2::254",
            "8.8.8.8",
            "2001:db8::1",
            "224.0.0.251",
            "255.255.255.255",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(listed(vec![host(&[ip], 8000, 0, 0)]), Err(Trouble::NoneUsable(1)), "{ip}");
        }
        for port in [0, 9100] {
            assert_eq!(listed(vec![host(&["10.0.0.7"], port, 0, 0)]), Err(Trouble::NoneUsable(1)));
        }
        let mixed = found(vec![host(&["10.0.0.7"], 1, 0, 0), host(&["127.0.0.1"], 1, 0, 0)]);
        let answer = judge(&mixed, None, &[], |_| true).unwrap();
        assert_eq!((answer.listings.len(), answer.left_out), (1, 1));
    }

    #[test]
    fn nothing_and_far_too_much_are_no_answers() {
        assert_eq!(listed(Vec::new()), Err(Trouble::Nothing));
        let many =
            |count: u32| (0..count).map(|it| host(&[&format!("10.1.{}.{}", it / 250, it % 250)], 1, 0, 0));
        assert_eq!(listed(many(1024).collect()).map(|it| it.len()), Ok(1024));
        assert_eq!(listed(many(1025).collect()), Err(Trouble::TooMany(1025)));
    }

    fn any_host() -> impl Strategy<Value = Host> {
        let ip = prop_oneof![
            any::<u32>().prop_map(|it| IpAddr::from(it.to_be_bytes())),
            (0u32..512).prop_map(|it| IpAddr::from((0x0A00_0000 + it).to_be_bytes())),
            any::<u128>().prop_map(|it| IpAddr::from(it.to_be_bytes())),
        ];
        (prop::collection::vec(ip, 0..4), any::<u16>(), 0u16..5, 0u16..5)
            .prop_map(|(ips, port, priority, weight)| Host { ips, port, priority, weight })
    }

    proptest! {
        #[test]
        fn an_answer_never_sends_us_to_this_machine_or_far_away(hosts in prop::collection::vec(any_host(), 0..40)) {
            let own: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.1.1".parse().unwrap()];
            let Ok(answer) = judge(&found(hosts), None, &own, |port| port != 9100) else { return Ok(()) };
            prop_assert!(answer.listings.values().any(|it| it.tier == 0));
            for endpoint in answer.listings.keys() {
                let ip = endpoint.ip().expect("it is an address");
                prop_assert!(!own.contains(&ip) && !endpoint.is_local());
                prop_assert!(crate::server::Zone::of(ip) == crate::server::Zone::Lan);
                prop_assert!(endpoint.port().is_some_and(|it| it != 0 && it != 9100));
            }
        }
    }
}
