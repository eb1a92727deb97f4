//! Which addresses can be those of other machines nearby, whoever says that a server is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ranges where clouds answer with the keys of whoever asks from inside, as far as they lie
/// among private addresses: 169.254.169.254 and its neighbours, 169.254.170.2, 100.100.100.200
/// and fd00:ec2::254.
const METADATA_V4: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(169, 254, 169, 0), 24),
    (Ipv4Addr::new(169, 254, 170, 0), 24),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
];
const METADATA_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32);

/// Whether an address can be that of another machine of a local network.
pub(super) fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared =
                shares_prefix(ip.to_bits().into(), Ipv4Addr::new(100, 64, 0, 0).to_bits().into(), 10, 32);
            let metadata = METADATA_V4
                .iter()
                .any(|(of, prefix)| shares_prefix(ip.to_bits().into(), of.to_bits().into(), *prefix, 32));
            (ip.is_private() || ip.is_link_local() || shared) && !metadata
        }
        // A link-local address is none without its interface, which no URL can name.
        IpAddr::V6(ip) => {
            let (of, prefix) = METADATA_V6;
            ip.is_unique_local() && !shares_prefix(ip.to_bits(), of.to_bits(), prefix, 128)
        }
    }
}

/// Whether two addresses of so many bits begin with the same `prefix` bits. A network of
/// everything is none.
pub(super) fn shares_prefix(one: u128, other: u128, prefix: u8, bits: u8) -> bool {
    (1..=bits).contains(&prefix) && (one ^ other) >> (bits - prefix) == 0
}
