//! What a record of multicast DNS is worth: where it may send us, if anywhere.
//!
//! Pure. Anybody in a network can say anything there, so a record counts only for addresses
//! of the network that it was heard in: whoever announces another machine of the same network
//! could as well answer in its place. What it says of a server is not believed at all; there is
//! no path, no key and no zone in it that anybody would act on. A path in particular would be
//! a stranger's choice of what we ask a third machine for.

use std::net::IpAddr;

use crate::{
    scan::near::{is_near, shares_prefix},
    server::Endpoint,
};

/// The longest name in DNS.
const LONGEST_NAME: usize = 255;

/// Addresses of one server that are looked at. A machine has a few networks.
const MOST_ADDRESSES: usize = 8;

/// A service as it was announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Its full name, type included, which is one server's own in a network.
    pub(super) name: String,
    pub(super) port: u16,
    /// Its addresses, each with the numbers of the interfaces that heard it.
    pub(super) addresses: Vec<(IpAddr, Vec<u32>)>,
    /// Whether it only tells of somebody in the cloud: its address is that of whoever
    /// announces, and prompts would go to a URL that came from multicast.
    pub(super) tells_of_cloud: bool,
}

/// An address of this machine, with the network that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) number: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

/// Where this record says that a server is, likeliest first, as far as it is believed.
pub(super) fn judge(
    record: &Record,
    interfaces: &[Interface],
    may_ask: impl Fn(u16) -> bool,
) -> Vec<Endpoint> {
    if record.tells_of_cloud || !is_name(&record.name) || record.port == 0 || !may_ask(record.port) {
        return Vec::new();
    }
    let believed = |(ip, heard_on): &&(IpAddr, Vec<u32>)| {
        let is_ours = interfaces.iter().any(|it| it.ip == *ip);
        let heard = interfaces.iter().filter(|it| heard_on.contains(&it.number));
        !is_ours && is_near(*ip) && heard.into_iter().any(|it| it.reaches(*ip))
    };
    let mut ips: Vec<IpAddr> =
        record.addresses.iter().take(MOST_ADDRESSES).filter(believed).map(|(ip, _)| *ip).collect();
    // IPv4 first: half of all servers listen on nothing else.
    ips.sort_unstable();
    ips.dedup();
    ips.into_iter().map(|ip| Endpoint::tcp(ip, record.port)).collect()
}

/// Whether this can be a name: it is shown, logged and kept.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control)
}

impl Interface {
    /// Whether a machine with this address is in the same network.
    fn reaches(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let host = ip.to_bits() & u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                let all = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                // The first and the last address of a network are nobody's.
                let is_a_machine = self.prefix >= 31 || (host != 0 && host != all);
                is_a_machine && shares_prefix(own.to_bits().into(), ip.to_bits().into(), self.prefix, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => shares_prefix(own.to_bits(), ip.to_bits(), self.prefix, 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn interfaces() -> Vec<Interface> {
        let interface = |number, ip: &str, prefix| Interface { number, ip: ip.parse().unwrap(), prefix };
        vec![
            interface(1, "127.0.0.1", 8),
            interface(2, "192.168.1.10", 24),
            interface(2, "fd12:3456::10", 64),
            interface(2, "fe80::10", 64),
            interface(3, "10.0.0.5", 8),
            interface(4, "203.0.113.5", 24),
            interface(5, "169.254.7.7", 16),
            interface(6, "100.100.100.1", 24),
            interface(7, "fd00:ec2::1", 64),
        ]
    }

    fn record(name: &str, addresses: &[(&str, u32)]) -> Record {
        let addresses = addresses.iter().map(|(ip, number)| (ip.parse().unwrap(), vec![*number])).collect();
        Record { name: name.to_owned(), port: 11434, addresses, tells_of_cloud: false }
    }

    fn check(addresses: &[(&str, u32)], expected: &[&str]) {
        let found = judge(&record("Desk._ollama._tcp.local.", addresses), &interfaces(), |_| true);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{addresses:?}");
    }

    #[test]
    fn only_another_machine_of_the_network_that_heard_it_counts() {
        check(&[("192.168.1.7", 2)], &["http://192.168.1.7:11434"]);
        check(&[("fd12:3456::7", 2)], &["http://[fd12:3456::7]:11434"]);
        check(
            &[("fd12:3456::7", 2), ("192.168.1.7", 2)],
            &["http://192.168.1.7:11434", "http://[fd12:3456::7]:11434"],
        );
        check(&[("10.9.9.9", 3)], &["http://10.9.9.9:11434"]);
        check(&[("169.254.9.9", 5)], &["http://169.254.9.9:11434"]);
        // Heard in another network than its own.
        check(&[("10.9.9.9", 2)], &[]);
        check(&[("192.168.1.7", 3)], &[]);
        check(&[("192.168.2.7", 2)], &[]);
        check(&[("fd12:3457::7", 2)], &[]);
        check(&[("192.168.1.7", 9)], &[]);
    }

    #[test]
    fn what_is_no_other_machine_nearby_does_not_count() {
        for (ip, number) in [
            ("127.0.0.1", 1),
            ("127.0.0.2", 1),
            ("::1", 1),
            ("0.0.0.0", 2),
            ("::", 2),
            ("192.168.1.10", 2),
            ("10.0.0.5", 3),
            ("192.168.1.0", 2),
            ("192.168.1.255", 2),
            ("255.255.255.255", 2),
            ("224.0.0.251", 2),
            ("ff02::fb", 2),
            ("8.8.8.8", 2),
            ("203.0.113.9", 4),
            ("2001:db8::1", 2),
            ("fe80::7", 2),
            ("169.254.169.254", 5),
            ("169.254.170.2", 5),
            ("100.100.100.200", 6),
            ("fd00:ec2::254", 7),
            ("::ffff:192.168.1.7", 2),
        ] {
            check(&[(ip, number)], &[]);
        }
    }

    #[test]
    fn a_record_of_the_cloud_or_without_a_proper_name_or_port_does_not_count() {
        let good = record("a", &[("192.168.1.7", 2)]);
        let judged = |it: &Record| judge(it, &interfaces(), |port| port != 9100).len();
        assert_eq!(judged(&good), 1);
        assert_eq!(judged(&Record { tells_of_cloud: true, ..good.clone() }), 0);
        assert_eq!(judged(&Record { port: 0, ..good.clone() }), 0);
        assert_eq!(judged(&Record { port: 9100, ..good.clone() }), 0);
        for name in ["", "a\u{1b}[31mb", "a\nb", "a\u{7f}", &"x".repeat(256)] {
            assert_eq!(judged(&Record { name: name.to_owned(), ..good.clone() }), 0, "{name:?}");
        }
    }

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        // Addresses near ours, and any at all.
        prop_oneof![
            any::<u32>().prop_map(|it| Ipv4Addr::from_bits(it).into()),
            (0u32..1024).prop_map(|it| Ipv4Addr::from_bits(0xC0A8_0000 + it).into()),
            (0u32..1024).prop_map(|it| Ipv4Addr::from_bits(0x0A00_0000 + it).into()),
            any::<u16>().prop_map(|it| Ipv4Addr::from_bits(0xA9FE_0000 + u32::from(it)).into()),
            any::<u128>().prop_map(|it| Ipv6Addr::from_bits(it).into()),
            any::<u16>().prop_map(|it| Ipv6Addr::new(0xfd12, 0x3456, 0, 0, 0, 0, 0, it).into()),
        ]
    }

    proptest! {
        #[test]
        fn a_record_never_sends_us_out_of_the_network_that_heard_it(
            addresses in prop::collection::vec((any_ip(), prop::collection::vec(0u32..9, 0..4)), 0..12),
            prefixes in prop::collection::vec(0u8..=130, 9),
            port in any::<u16>(),
            name in ".{0,40}",
        ) {
            let mut ours = interfaces();
            for (interface, prefix) in ours.iter_mut().zip(&prefixes) {
                interface.prefix = (*prefix).min(if interface.ip.is_ipv4() { 32 } else { 128 });
            }
            let record = Record { name, port, addresses, tells_of_cloud: false };
            for endpoint in judge(&record, &ours, |port| port > 1024) {
                let ip = endpoint.ip().expect("it is an address");
                prop_assert_eq!(endpoint.port(), Some(port));
                prop_assert!(port > 1024 && !endpoint.is_local());
                prop_assert!(ours.iter().all(|it| it.ip != ip));
                prop_assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified());
                prop_assert!(ip != IpAddr::from([169, 254, 169, 254]));
                let near = match ip {
                    IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.octets()[0] == 100,
                    IpAddr::V6(ip) => ip.is_unique_local(),
                };
                prop_assert!(near, "{}", ip);
                let heard = record.addresses.iter().filter(|(it, _)| *it == ip).flat_map(|(_, on)| on);
                let heard: Vec<u32> = heard.copied().collect();
                prop_assert!(ours.iter().any(|it| heard.contains(&it.number) && it.reaches(ip)));
            }
        }
    }
}
