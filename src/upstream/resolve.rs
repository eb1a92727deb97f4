//! From a name to addresses, none of which is farther away than is allowed.
//!
//! What a name stands for can change between two connections, and whoever answers for names
//! may say anything. So it is not enough to have looked once: each connection is made only to
//! addresses within its own bounds, and a connection is kept for those bounds alone.

use std::{error::Error, fmt, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::server::Zone;

/// Finds addresses no farther away than this.
pub(super) struct Within(pub(super) Zone);

/// All that the name stands for is farther away than is allowed.
#[derive(Debug)]
pub(super) struct TooFar;

impl fmt::Display for TooFar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name leads farther away than is allowed")
    }
}

impl Error for TooFar {}

impl Resolve for Within {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(within(reach, found)?.into_iter()) as Addrs)
        })
    }
}

/// Those of these addresses that may be connected to. A name without any is no such name.
fn within(reach: Zone, mut found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, TooFar> {
    let any = !found.is_empty();
    found.retain(|it| Zone::of(it.ip()) <= reach);
    if any && found.is_empty() { Err(TooFar) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_far_is_left_out_and_nothing_else() {
        let found = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let all = found(&["127.0.0.1:0", "192.168.1.2:0", "8.8.8.8:0"]);
        for (reach, left) in [(Zone::Machine, 1), (Zone::Lan, 2), (Zone::Cloud, 3)] {
            assert_eq!(within(reach, all.clone()).unwrap(), all[..left]);
        }
        assert!(within(Zone::Lan, found(&["8.8.8.8:0", "[2001:db8::1]:0"])).is_err());
        assert!(within(Zone::Machine, found(&["192.168.1.2:0"])).is_err());
        assert!(within(Zone::Machine, Vec::new()).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_connection_is_ever_made_beyond_its_bounds(
            found in prop::collection::vec(any::<std::net::IpAddr>(), 0..8),
            reach in prop::sample::select(vec![Zone::Machine, Zone::Lan, Zone::Cloud]),
        ) {
            let found: Vec<SocketAddr> = found.into_iter().map(|it| (it, 0).into()).collect();
            if let Ok(left) = within(reach, found.clone()) {
                prop_assert!(left.iter().all(|it| Zone::of(it.ip()) <= reach));
                prop_assert!(left.iter().all(|it| found.contains(it)));
            }
        }
    }
}
