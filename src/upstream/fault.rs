//! From a client's error to a `Fault`, by causes and never by text.

use std::{error::Error, io};

use crate::{
    fault::{Cause, Fault, Stage},
    upstream::{
        client::{Barred, ConnectTimedOut},
        resolve::TooFar,
        verify::OtherKey,
    },
};

/// What went wrong. `stage` is how far the attempt had come if it was connected.
pub(super) fn fault_of(error: &reqwest::Error, stage: Stage) -> Fault {
    let stage = if error.is_connect() { Stage::Connect } else { stage };
    let cause = chain(error).find_map(|it| cause_of(it, stage)).unwrap_or(match stage {
        Stage::Connect => Cause::Unreachable,
        Stage::Head => Cause::Reset,
        Stage::FirstToken | Stage::Content => Cause::Unreadable,
    });
    let stage = if matches!(cause, Cause::Tls | Cause::WrongPin) { Stage::Connect } else { stage };
    Fault::new(stage, cause)
}

/// Whether the connection was closed under a request whose head never came.
pub(super) fn is_closed_early(error: &reqwest::Error) -> bool {
    !error.is_connect() && fault_of(error, Stage::Head).cause == Cause::Reset
}

fn chain<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |it| (*it).source())
}

fn cause_of(error: &(dyn Error + 'static), stage: Stage) -> Option<Cause> {
    if error.is::<ConnectTimedOut>() {
        return Some(Cause::ConnectTimeout);
    }
    if error.is::<Barred>() {
        return Some(Cause::Barred);
    }
    if error.is::<TooFar>() {
        return Some(Cause::TooFar);
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(if OtherKey::is(error) { Cause::WrongPin } else { Cause::Tls });
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return cause_of_hyper(error, stage);
    }
    let error = error.downcast_ref::<io::Error>()?;
    // The source of an I/O error is not what it wraps but the source of that.
    if let Some(inner) = error.get_ref()
        && let Some(cause) = cause_of(inner, stage)
    {
        return Some(cause);
    }
    cause_of_io(error, stage)
}

fn cause_of_hyper(error: &hyper::Error, stage: Stage) -> Option<Cause> {
    if error.is_parse() {
        Some(if stage <= Stage::Head { Cause::BadHead } else { Cause::Unreadable })
    } else if error.is_incomplete_message() {
        Some(if stage <= Stage::Head { Cause::Reset } else { Cause::EarlyEnd })
    } else if error.is_canceled() || error.is_closed() {
        Some(Cause::Reset)
    } else {
        None
    }
}

fn cause_of_io(error: &io::Error, stage: Stage) -> Option<Cause> {
    use io::ErrorKind as Kind;
    if error.raw_os_error().is_some_and(is_our_own_want) {
        return Some(Cause::Internal);
    }
    match error.kind() {
        Kind::ConnectionRefused => Some(Cause::Refused),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::NotConnected => {
            Some(Cause::Reset)
        }
        Kind::UnexpectedEof => Some(match stage {
            // Only a TLS handshake reads anything before the head.
            Stage::Connect => Cause::Tls,
            Stage::Head => Cause::Reset,
            Stage::FirstToken | Stage::Content => Cause::EarlyEnd,
        }),
        Kind::TimedOut => Some(if stage == Stage::Connect { Cause::ConnectTimeout } else { Cause::Reset }),
        Kind::NotFound
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable
        | Kind::PermissionDenied => Some(Cause::Unreachable),
        _ => None,
    }
}

/// Out of descriptors or buffers: that is this process, not the server.
fn is_our_own_want(number: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|it| it.raw_os_error() == number)
}
