//! Tells the service manager how we are, in systemd's protocol: one datagram
//! with a line of text to the socket that `NOTIFY_SOCKET` names.

use std::{
    ffi::OsStr,
    io,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

/// Where to tell it; nowhere when nobody asked.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    address: Option<SocketAddr>,
}

impl Readiness {
    /// Reads the value of `NOTIFY_SOCKET`. One that makes no sense is like none.
    pub fn new(notify_socket: Option<&OsStr>) -> Self {
        Self { address: notify_socket.and_then(|it| address(it).ok()) }
    }

    /// Requests are answered from now on.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// No new requests are taken; those that run are finished.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, line: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|it| it.send_to_addr(line.as_bytes(), address));
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot tell the service manager {line}");
        }
    }
}

/// A path, or a name in Linux' abstract space when it begins with `@`.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        _ => SocketAddr::from_pathname(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_manager_hears_of_start_and_stop() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let readiness = Readiness::new(Some(path.as_os_str()));
        readiness.ready();
        assert_eq!(heard(&listener), "READY=1");
        readiness.stopping();
        assert_eq!(heard(&listener), "STOPPING=1");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_abstract_socket_is_reached() {
        let name = format!("@lovable-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
        Readiness::new(Some(OsStr::new(&name))).ready();
        assert_eq!(heard(&listener), "READY=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Readiness::default().ready();
        Readiness::new(Some(OsStr::new("/nowhere/notify"))).ready();
    }
}
