//! Tells the service manager how we are, in systemd's protocol: one datagram
//! with lines of text to the socket that `NOTIFY_SOCKET` names, and a sign of
//! life as often as `WATCHDOG_USEC` asks for one.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// A manager whose queue is full for this long is not waited for: the daemon has callers.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where to tell it; nowhere when nobody asked.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Readiness {
    /// Reads what the manager has put into the environment; what makes no sense is like nothing.
    pub fn new(var: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let number = |name: &str| var(name)?.to_str()?.parse::<u64>().ok();
        // The variables may have been meant for the process that started us.
        let ours = number("WATCHDOG_PID").is_none_or(|it| it == u64::from(pid));
        let usec = number("WATCHDOG_USEC").filter(|it| ours && *it > 0);
        let address = var("NOTIFY_SOCKET").and_then(|it| address(&it).ok());
        Self { watchdog: address.as_ref().and(usec).map(Duration::from_micros), address }
    }

    /// Whether anybody listens to what is told.
    pub fn is_asked_for(&self) -> bool {
        self.address.is_some()
    }

    /// After how long without a sign of life we are taken for dead, if anybody watches.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Requests are answered from now on.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// No new requests are taken; those that run are finished.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// How we are, in words that a person reads.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", one_line(text)));
    }

    /// We live.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, lines: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|it| {
            it.set_write_timeout(Some(PATIENCE))?;
            it.send_to_addr(lines.as_bytes(), address)
        });
        if let Err(error) = sent {
            let what = lines.split('=').next().unwrap_or_default();
            tracing::warn!(%error, "cannot tell the service manager {what}");
        }
    }
}

/// A line feed would begin another message.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
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

    fn readiness(variables: &[(&str, &str)]) -> Readiness {
        let var = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1));
        Readiness::new(var, 42)
    }

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_manager_hears_of_start_life_and_stop() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let readiness = readiness(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        readiness.ready("2 servers");
        assert_eq!(heard(&listener), "READY=1\nSTATUS=2 servers");
        readiness.status("a name\nREADY=0");
        assert_eq!(heard(&listener), "STATUS=a name READY=0");
        readiness.alive();
        assert_eq!(heard(&listener), "WATCHDOG=1");
        readiness.stopping("1 answer runs");
        assert_eq!(heard(&listener), "STOPPING=1\nSTATUS=1 answer runs");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_abstract_socket_is_reached() {
        let name = format!("@lovable-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&address(OsStr::new(&name)).unwrap()).unwrap();
        readiness(&[("NOTIFY_SOCKET", &name)]).alive();
        assert_eq!(heard(&listener), "WATCHDOG=1");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Readiness::default().ready("");
        readiness(&[("NOTIFY_SOCKET", "/nowhere/notify")]).ready("");
    }

    #[test]
    fn only_a_watchdog_that_waits_for_us_is_fed() {
        let check = |variables: &[(&str, &str)], expected: Option<u64>| {
            let all = [&[("NOTIFY_SOCKET", "/run/notify")], variables].concat();
            assert_eq!(readiness(&all).watchdog(), expected.map(Duration::from_micros), "{variables:?}");
        };
        check(&[], None);
        check(&[("WATCHDOG_USEC", "30000000")], Some(30_000_000));
        check(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "42")], Some(30_000_000));
        check(&[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "41")], None);
        check(&[("WATCHDOG_USEC", "0")], None);
        check(&[("WATCHDOG_USEC", "soon")], None);
        assert_eq!(readiness(&[("WATCHDOG_USEC", "1000")]).watchdog(), None, "nobody listens");
    }
}
