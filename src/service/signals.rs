//! What the system and people tell a running daemon.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A wish, whatever signal it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish what runs and leave; the second time, leave at once.
    Stop,
    /// SIGHUP.
    Reload,
    /// SIGUSR1: the log file was moved away.
    ReopenLog,
}

/// Waits for signals.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    user: unix::Signal,
}

/// Starts to catch signals; none of them kills the process from now on. Needs a runtime.
pub fn signals() -> io::Result<Signals> {
    Ok(Signals {
        terminate: unix::signal(SignalKind::terminate())?,
        interrupt: unix::signal(SignalKind::interrupt())?,
        hang_up: unix::signal(SignalKind::hangup())?,
        user: unix::signal(SignalKind::user_defined1())?,
    })
}

impl Signals {
    /// The next signal. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
            _ = self.user.recv() => Signal::ReopenLog,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process;

    use super::*;

    #[tokio::test]
    async fn each_signal_is_a_wish_and_kills_nobody() {
        let mut signals = signals().unwrap();
        for (number, wish) in [
            (process::Signal::HUP, Signal::Reload),
            (process::Signal::USR1, Signal::ReopenLog),
            (process::Signal::TERM, Signal::Stop),
            (process::Signal::INT, Signal::Stop),
        ] {
            process::kill_process(process::getpid(), number).unwrap();
            assert_eq!(signals.next().await, wish);
        }
    }
}
