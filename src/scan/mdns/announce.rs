//! Tells the network of this daemon's own listener, where the person wants that.

use std::net::{IpAddr, SocketAddr};

use mdns_sd::{IfKind, ServiceInfo};

/// The type under which daemons find each other.
pub(super) const TYPE: &str = "_lovable._tcp.local.";

/// The longest label in DNS.
const LONGEST_LABEL: usize = 63;

/// A listener that others in the network can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    listen: SocketAddr,
    instance: String,
}

impl Announcement {
    /// What is told of a daemon that listens there; `None` if nobody else could come there.
    pub fn of(listen: Option<SocketAddr>, instance: &str) -> Option<Self> {
        let listen = listen.filter(|it| !it.ip().to_canonical().is_loopback())?;
        Some(Self { listen, instance: instance.to_owned() })
    }

    /// As a service on a machine of this name.
    pub(super) fn service(&self, machine: &str) -> mdns_sd::Result<ServiceInfo> {
        let ip = self.listen.ip().to_canonical();
        let properties = [("version", env!("CARGO_PKG_VERSION")), ("instance", &self.instance)];
        // A name of its own: the machine's may be somebody else's to announce.
        let host = format!("lovable-{}.local.", self.instance);
        let (name, port) = (label(machine), self.listen.port());
        let service = ServiceInfo::new(TYPE, &name, &host, "", port, &properties[..])?;
        // With addresses that are looked up it is also told of in a network that comes later,
        // or comes back.
        let mut service = service.enable_addr_auto();
        match ip {
            IpAddr::V4(ip) if ip.is_unspecified() => service.set_interfaces(vec![IfKind::IPv4]),
            IpAddr::V6(ip) if ip.is_unspecified() => {}
            ip => service.set_interfaces(vec![IfKind::Addr(ip)]),
        }
        Ok(service)
    }
}

fn label(machine: &str) -> String {
    let mut label = String::from("lovable on ");
    for letter in machine.chars().filter(|it| !it.is_control()) {
        if label.len() + letter.len_utf8() > LONGEST_LABEL {
            break;
        }
        label.push(letter);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(listen: &str) -> Option<Announcement> {
        Announcement::of(Some(listen.parse().unwrap()), "0123456789abcdef")
    }

    #[test]
    fn only_a_listener_that_others_can_reach_is_announced() {
        assert_eq!(Announcement::of(None, "x"), None);
        for listen in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(announce(listen), None, "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "192.168.1.7:1", "[fd00::7]:1"] {
            assert!(announce(listen).is_some(), "{listen}");
        }
    }

    #[test]
    fn it_says_version_and_instance_and_where() {
        let service = announce("192.168.1.7:7777").unwrap().service("desk").unwrap();
        assert_eq!(service.get_fullname(), "lovable on desk._lovable._tcp.local.");
        assert_eq!(service.get_property_val_str("version"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(service.get_property_val_str("instance"), Some("0123456789abcdef"));
        for listen in ["0.0.0.0:1", "[::]:1", "192.168.1.7:1"] {
            assert!(announce(listen).unwrap().service("desk").unwrap().is_addr_auto(), "{listen}");
        }
    }

    #[test]
    fn a_name_fits_into_a_label() {
        assert_eq!(label("de\u{7}sk"), "lovable on desk");
        assert_eq!(label(&"é".repeat(100)).len(), 63);
    }
}
