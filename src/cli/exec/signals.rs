//! Signals that we get while a program runs under us.
//!
//! The program is in our process group, so that what the terminal sends (Ctrl-C,
//! Ctrl-\, Ctrl-Z, a new size, hanging up) reaches it without us, and job control
//! is as if we were not there. What another process sends to us alone is passed on.
//! The kernel tells which is which.

use std::thread;

use rustix::process::Signal;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::{SignalsInfo, exfiltrator::raw::WithRawSiginfo},
};
use tokio::sync::mpsc;

use crate::cli::Trouble;

const CAUGHT: [(i32, Signal); 7] = [
    (SIGHUP, Signal::HUP),
    (SIGINT, Signal::INT),
    (SIGQUIT, Signal::QUIT),
    (SIGTERM, Signal::TERM),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
    (SIGWINCH, Signal::WINCH),
];

/// Catches signals from now on; the ones that must be passed on come out of the channel.
///
/// Those that were ignored when we started stay so, for us and for the program, or
/// `nohup` would be in vain.
pub(super) fn catch() -> Result<mpsc::UnboundedReceiver<Signal>, Trouble> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let caught = CAUGHT.iter().map(|it| it.0).filter(|it| ignored & (1 << (it - 1)) == 0);
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(caught)
        .map_err(|error| Trouble::Failed(format!("cannot catch signals: {error}")))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    // It sleeps until a signal comes, and ends with the process.
    thread::spawn(move || {
        for info in signals.forever() {
            let known = CAUGHT.iter().find(|it| it.0 == info.si_signo);
            if let Some((_, signal)) = known
                && was_sent_by_a_process(info.si_code)
                && sender.send(*signal).is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

/// `SI_USER` and its relatives, against what the kernel itself has to say.
fn was_sent_by_a_process(code: i32) -> bool {
    /// `SI_USER` of a Mac.
    const MAC_USER: i32 = 0x10001;
    if cfg!(target_os = "linux") { code <= 0 } else { code == MAC_USER }
}

/// The signals that are ignored, one bit each, from what Linux says of a process.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    line.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_process() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t01\n"), 0x1001);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_is_no_process() {
        const SI_KERNEL: i32 = 0x80;
        const SI_TKILL: i32 = -6;
        assert_eq!([0, SI_TKILL, SI_KERNEL].map(was_sent_by_a_process), [true, true, false]);
    }
}
