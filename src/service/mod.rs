//! The daemon as a process among others: its socket, its lock, its log, its
//! signals, and how it goes to the background.
//!
//! Nothing here knows of requests or servers. `launch` does all that must be
//! done while there is one thread and no runtime, in an order that matters: a
//! process that forks must not have threads, and whatever can fail should fail
//! while a person still looks at the terminal.

pub mod args;
pub mod background;
mod journal;
pub mod launch;
#[cfg(any(target_os = "macos", test))]
mod launchd;
pub mod log;
pub mod pulse;
pub mod readiness;
mod repeat;
pub mod signals;
pub mod socket;
pub mod tcp;
pub mod users;
