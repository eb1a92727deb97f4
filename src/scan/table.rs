//! The table of listening sockets, as the kernel tells it.
//!
//! Linux only. It is asked twice a second for as long as we live, so it has to
//! be cheap. `NETLINK_SOCK_DIAG` lists listeners alone: 0.03 ms on a 2-core
//! virtual machine (debug build), whatever else goes on there. `/proc/net/tcp`
//! also prints every connection of the last minute: 14 ms there after 5,000 of
//! them. Where a sandbox forbids netlink the text files are read all the same.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

/// A listening TCP socket of this machine (or container).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listener {
    /// The address that it is bound to.
    pub(super) ip: IpAddr,
    /// The port.
    pub(super) port: u16,
    /// Whose it is, by user id.
    pub(super) uid: u32,
    /// Its inode, which tells it from an earlier listener on the same port.
    pub(super) inode: u64,
    /// Whether an IPv6 socket takes no IPv4; not known from the text files.
    pub(super) v6_only: bool,
}

/// A way to the table.
pub(super) struct Table {
    way: Way,
    buffer: Vec<u8>,
}

enum Way {
    #[cfg(target_os = "linux")]
    Netlink(rustix::fd::OwnedFd),
    Files(PathBuf),
}

impl Table {
    /// Opens the table; `None` where the system shows none.
    pub(super) fn open(proc_root: &Path) -> Option<Self> {
        let mut ways = Vec::new();
        #[cfg(target_os = "linux")]
        ways.extend(netlink::open().ok().map(Way::Netlink));
        ways.push(Way::Files(proc_root.to_owned()));
        ways.into_iter().find_map(|way| {
            let mut table = Self { way, buffer: Vec::new() };
            table.read(&mut Vec::new()).ok().map(|()| table)
        })
    }

    /// The table as text files alone tell it.
    #[cfg(test)]
    pub(super) fn files(proc_root: &Path) -> Self {
        Self { way: Way::Files(proc_root.to_owned()), buffer: Vec::new() }
    }

    /// Reads all listeners into `into`, sorted.
    pub(super) fn read(&mut self, into: &mut Vec<Listener>) -> io::Result<()> {
        into.clear();
        match &self.way {
            #[cfg(target_os = "linux")]
            Way::Netlink(socket) => netlink::read(socket, &mut self.buffer, into)?,
            Way::Files(root) => {
                let mut seen = false;
                for name in ["net/tcp", "net/tcp6"] {
                    // A kernel without IPv6 has no second file.
                    if read_file(&root.join(name), &mut self.buffer).is_ok() {
                        seen = true;
                        into.extend(self.buffer.split(|it| *it == b'\n').filter_map(parse_line));
                    }
                }
                if !seen {
                    return Err(io::ErrorKind::NotFound.into());
                }
            }
        }
        into.sort_unstable();
        Ok(())
    }
}

fn read_file(path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    io::Read::read_to_end(&mut std::fs::File::open(path)?, into).map(drop)
}

/// Reads a line of `/proc/net/tcp` or `tcp6` if it is a listener's.
fn parse_line(line: &[u8]) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { ip: parse_ip(ip)?, port, uid, inode, v6_only: false })
}

/// Addresses are printed as 32-bit words in the machine's own byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    if !hex.is_ascii() || (hex.len() != 8 && hex.len() != 32) {
        return None;
    }
    for (at, word) in bytes.chunks_exact_mut(4).enumerate().take(hex.len() / 8) {
        let value = u32::from_str_radix(&hex[at * 8..at * 8 + 8], 16).ok()?;
        word.copy_from_slice(&value.to_ne_bytes());
    }
    Some(if hex.len() == 8 {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    } else {
        Ipv6Addr::from(bytes).into()
    })
}

#[cfg(target_os = "linux")]
mod netlink {
    //! `sock_diag(7)`, as much of it as lists TCP listeners.

    use std::{
        io,
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
    };

    use rustix::{
        fd::{AsFd, OwnedFd},
        net::{
            AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
        },
    };

    use super::Listener;

    /// The kernel fills up to 32 KiB at a time; half of that holds 150 listeners.
    const BUFFER: usize = 16 << 10;
    const HEADER: usize = 16;
    const DIAG: usize = 72;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x1 | 0x300;
    const TCP: u8 = 6;
    const LISTEN: u32 = 1 << 10;
    const V6_ONLY: u16 = 11;

    pub(super) fn open() -> io::Result<OwnedFd> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        Ok(socket_with(family, SocketType::DGRAM, flags, Some(netlink::SOCK_DIAG))?)
    }

    pub(super) fn read(socket: &OwnedFd, buffer: &mut Vec<u8>, into: &mut Vec<Listener>) -> io::Result<()> {
        buffer.resize(BUFFER, 0);
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            dump(socket, family.as_raw() as u8, buffer, into)?;
        }
        Ok(())
    }

    fn dump(socket: &OwnedFd, family: u8, buffer: &mut [u8], into: &mut Vec<Listener>) -> io::Result<()> {
        let mut request = [0; HEADER + 56];
        let length = request.len() as u32;
        request[..4].copy_from_slice(&length.to_ne_bytes());
        request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
        request[HEADER] = family;
        request[HEADER + 1] = TCP;
        request[HEADER + 4..HEADER + 8].copy_from_slice(&LISTEN.to_ne_bytes());
        send(socket.as_fd(), &request, SendFlags::empty())?;
        loop {
            let (count, _) = recv(socket.as_fd(), &mut *buffer, RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while rest.len() >= HEADER {
                let length = (u32_at(rest, 0) as usize).clamp(HEADER, rest.len());
                match u16_at(rest, 4) {
                    DONE => return Ok(()),
                    ERROR => return Err(io::ErrorKind::Unsupported.into()),
                    _ => into.extend(parse(&rest[HEADER..length])),
                }
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            }
        }
    }

    /// Reads an `inet_diag_msg` and the attribute behind it that we want.
    pub(super) fn parse(message: &[u8]) -> Option<Listener> {
        if message.len() < DIAG {
            return None;
        }
        let ip: IpAddr = if i32::from(message[0]) == i32::from(AddressFamily::INET.as_raw()) {
            Ipv4Addr::new(message[8], message[9], message[10], message[11]).into()
        } else {
            Ipv6Addr::from(<[u8; 16]>::try_from(&message[8..24]).ok()?).into()
        };
        let port = u16::from_be_bytes([message[4], message[5]]);
        let (uid, inode) = (u32_at(message, 64), u64::from(u32_at(message, 68)));
        let mut v6_only = false;
        let mut rest = &message[DIAG..];
        while rest.len() >= 4 {
            let length = usize::from(u16_at(rest, 0)).clamp(4, rest.len());
            if u16_at(rest, 2) == V6_ONLY {
                v6_only = rest.get(4) == Some(&1);
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Some(Listener { ip, port, uid, inode, v6_only })
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_ne_bytes([bytes[at], bytes[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 637 1 00000000083c3e31 100 0 0 10 0
   1: 0100007F:AD4F 0100007F:99B6 06 00000000:00000000 03:0000175E 00000000     0        0 0 3 00000000069654a8
   2: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5512 1 0000000000000000 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   997        0 77 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   997        0 78 1 0000000000000000 100 0 0 10 0
";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_text_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("net")).unwrap();
        std::fs::write(root.path().join("net/tcp"), TCP).unwrap();
        std::fs::write(root.path().join("net/tcp6"), TCP6).unwrap();
        let mut table = Table::files(root.path());
        let mut listeners = Vec::new();
        table.read(&mut listeners).unwrap();
        let shown: Vec<_> =
            listeners.iter().map(|it| format!("{} {} {} {}", it.ip, it.port, it.uid, it.inode)).collect();
        assert_eq!(
            shown,
            [
                "0.0.0.0 2024 0 637",
                "127.0.0.1 11434 1000 5512",
                "::1 8080 997 77",
                "::ffff:127.0.0.1 8081 997 78"
            ]
        );
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        for line in
            ["", "0: x", "0: 0100007F:2CAA 0:0 0A", "0: 01:2CAA 0:0 0A 0:0 0:0 0 0 0 1", "0: äääääää:1 0 0A"]
        {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn both_ways_see_the_same_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mine = |way| {
            let mut table = Table { way, buffer: Vec::new() };
            let mut listeners = Vec::new();
            table.read(&mut listeners).unwrap();
            listeners.into_iter().find(|it| it.port == port).unwrap()
        };
        let told = mine(Way::Netlink(netlink::open().unwrap()));
        assert_eq!(told, mine(Way::Files("/proc".into())));
        assert_eq!(told.uid, rustix::process::getuid().as_raw());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn torn_messages_are_passed_over() {
        let mut message = vec![2, 10, 0, 0, 0x2c, 0xaa, 0, 0, 127, 0, 0, 1];
        message.resize(72, 0);
        assert_eq!(netlink::parse(&message).unwrap().port, 11434);
        message.extend([9, 0, 11]);
        for end in 0..message.len() {
            let _ = netlink::parse(&message[..end]);
        }
        message.extend([0, 1]);
        assert!(netlink::parse(&message).unwrap().v6_only);
    }
}
