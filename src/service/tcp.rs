//! Who may use the TCP door: a port has no mode, so `Host`, `Origin` and the
//! peer's user are checked instead.
//!
//! `Host` guards against names that an attacker points at this machine, `Origin`
//! against web pages in a browser on it, the user against other people on it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
};

use hyper::{HeaderMap, Uri};

use super::{socket, users};
use crate::config::Scope;

/// What is foreign about a request over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Its `Host` is no name of ours.
    Host,
    /// It comes from somebody's web page.
    Page,
}

/// Whether a request over TCP names us by a foreign name or comes from a foreign page.
/// `hosts` and `origins` are what the person configured, `local` the address that it came to:
/// nobody can make a name of theirs look like that.
pub fn foreign(
    headers: &HeaderMap,
    uri: &Uri,
    local: IpAddr,
    hosts: &[String],
    origins: &[String],
) -> Option<Foreign> {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    let host = text("host").or(uri.authority().map(|it| it.as_str())).unwrap_or_default();
    if !host_allowed(host, hosts) && !is_address(host, local) {
        return Some(Foreign::Host);
    }
    // A header that is no text is foreign in any case.
    let origin = headers.get("origin").map(|it| it.to_str().unwrap_or("?"));
    let allowed = origin_allowed(origin, text("sec-fetch-site"), host, origins);
    (!allowed).then_some(Foreign::Page)
}

/// Whether this `Host` is a loopback name or one that the person configured. The
/// port does not matter for a loopback name: it cannot be made to point here from
/// elsewhere, and a tunnel or a container calls us by another port.
pub fn host_allowed(host: &str, configured: &[String]) -> bool {
    let host = host.trim().to_ascii_lowercase();
    let Some((name, _)) = split_host(&host) else { return false };
    is_loopback_name(name) || configured.iter().any(|it| *it == host || it == name)
}

/// Whether this `Host` is that address.
fn is_address(host: &str, local: IpAddr) -> bool {
    let name = split_host(host.trim()).and_then(|(name, _)| name.parse::<IpAddr>().ok());
    name.is_some_and(|it| it.to_canonical() == local.to_canonical())
}

/// Whether a request with these headers comes from a page that may ask us, or
/// from no page at all. `host` is the `Host` of the same request: our own pages
/// may ask us.
pub fn origin_allowed(
    origin: Option<&str>,
    sec_fetch_site: Option<&str>,
    host: &str,
    configured: &[String],
) -> bool {
    let Some(origin) = origin else {
        return sec_fetch_site.is_none_or(|it| !it.trim().eq_ignore_ascii_case("cross-site"));
    };
    let origin = origin.trim().to_ascii_lowercase();
    if configured.contains(&origin) {
        return true;
    }
    // `null` (a file, a sandboxed frame) is anybody's page.
    origin.strip_prefix("http://").is_some_and(|it| it.eq_ignore_ascii_case(host.trim()))
}

/// Splits `name:port`, `[::1]:port` or either without port.
fn split_host(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    if name.is_empty() {
        return None;
    }
    match port {
        Some(port) => Some((name, Some(port.parse().ok()?))),
        None => Some((name, None)),
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|it| it.to_canonical().is_loopback())
}

/// Whether the user behind a loopback connection could have opened the socket.
///
/// Only Linux shows whose a connection is; on a Mac the door, which is shut by
/// default, is for everybody who has an account there.
pub fn peer_allowed(peer: SocketAddr, local: SocketAddr, own_uid: u32, scope: Scope) -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let Some(uid) = peer_uid(peer, local) else { return false };
    match scope {
        Scope::User => socket::peer_allowed(uid, own_uid, scope),
        Scope::System => uid == own_uid || uid == 0 || users::is_member(uid, users::GROUP),
    }
}

/// The user who holds the other end of a loopback connection; `None` if nobody
/// holds it any more.
pub fn peer_uid(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    // An IPv4 connection of an IPv6 socket is in the IPv6 table.
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .find_map(|table| find_uid(BufReader::new(File::open(table).ok()?), peer, local).ok()?)
}

fn find_uid(table: impl BufRead, peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    let same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
    };
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace();
        let (Some(its_local), Some(its_remote)) = (fields.nth(1), fields.next()) else { continue };
        let (Some(its_local), Some(its_remote)) = (parse_address(its_local), parse_address(its_remote))
        else {
            continue;
        };
        if !same(its_local, peer) || !same(its_remote, local) {
            continue;
        }
        let (Some(uid), Some(inode)) = (fields.nth(4), fields.nth(1)) else { continue };
        // A socket that its process has closed is shown as root's, with inode 0.
        if inode == "0" {
            continue;
        }
        return Ok(uid.parse().ok());
    }
    Ok(None)
}

/// Reads `0100007F:1F90`: words in the machine's own byte order, in hexadecimal.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn hosts_are_loopback_names_or_configured_ones() {
        let configured = ["box.local".to_owned(), "exact.local:8080".to_owned()];
        for (host, allowed) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("LOCALHOST:8080", true),
            ("localhost.:8080", true),
            ("app.localhost", true),
            ("127.0.0.1:8080", true),
            ("127.8.8.8", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("box.local", true),
            ("Box.local:9999", true),
            ("exact.local:8080", true),
            ("exact.local:8081", false),
            ("exact.local", false),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.1.7:8080", false),
            ("0.0.0.0:8080", false),
            ("localhost:evil", false),
            ("localhost:", false),
            ("", false),
            (":8080", false),
            ("[::1", false),
            ("[::1]evil", false),
            ("localhost@evil.example", false),
        ] {
            assert_eq!(host_allowed(host, &configured), allowed, "{host:?}");
        }
    }

    #[test]
    fn the_address_that_a_caller_came_to_is_a_name_of_ours() {
        let at = |host: &str, local: &str| is_address(host, local.parse().unwrap());
        assert!(at("192.168.1.7:8080", "192.168.1.7"));
        assert!(at("192.168.1.7", "::ffff:192.168.1.7"));
        assert!(at("[fd00::7]:8080", "fd00::7"));
        assert!(!at("192.168.1.8:8080", "192.168.1.7"));
        assert!(!at("192.168.1.7.evil.example", "192.168.1.7"));
        assert!(!at("box:8080", "192.168.1.7"));
    }

    #[test]
    fn origins_are_our_own_pages_or_configured_ones() {
        let configured = ["https://chat.example".to_owned()];
        let host = "localhost:8080";
        for (origin, site, allowed) in [
            (None, None, true),
            (None, Some("none"), true),
            (None, Some("same-origin"), true),
            (None, Some("cross-site"), false),
            (None, Some("Cross-Site"), false),
            (Some("http://localhost:8080"), Some("same-origin"), true),
            (Some("http://localhost:3000"), Some("same-site"), false),
            (Some("https://chat.example"), Some("cross-site"), true),
            (Some("https://chat.example.evil"), None, false),
            (Some("http://chat.example"), None, false),
            (Some("https://evil.example"), None, false),
            (Some("null"), None, false),
            (Some(""), None, false),
            (Some("http://localhost:8080.evil.example"), None, false),
        ] {
            assert_eq!(origin_allowed(origin, site, host, &configured), allowed, "{origin:?} {site:?}");
        }
    }

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0\n\
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 112 1 0 20 4 30 10 -1\n\
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 113 1 0 20 4 30 10 -1\n\
   3: 0100007F:C351 0100007F:1F90 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0\n";

    fn uid_of(port: u16) -> Option<u32> {
        let peer = SocketAddr::from(([127, 0, 0, 1], port));
        find_uid(TABLE.as_bytes(), peer, "127.0.0.1:8080".parse().unwrap()).unwrap()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_peers_user_is_that_of_its_own_end() {
        assert_eq!(uid_of(50000), Some(1001));
        assert_eq!(uid_of(50002), None);
    }

    #[test]
    fn a_peer_that_has_closed_its_end_is_not_taken_for_root() {
        assert_eq!(uid_of(50001), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn our_own_connections_are_ours() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let stream = TcpStream::connect(local).unwrap();
            let (_accepted, peer) = listener.accept().unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(peer_uid(peer, local), Some(own), "{address}");
            assert!(peer_allowed(peer, local, own, Scope::User));
            drop(stream);
            assert_eq!(peer_uid(peer, local), None);
        }
    }
}
