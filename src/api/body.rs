//! Reads a caller's body: bounded in size, and not for ever.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::fault::Failure;

/// A body has so long, and longer while it comes at `LEAST_RATE`.
const BODY_TIME: Duration = Duration::from_secs(15);
/// Bytes per second below which a caller is no longer waited for. The slowest
/// honest callers sit behind a tunnel and send a few hundred KiB a second.
const LEAST_RATE: u64 = 64 << 10;
/// A body below this is copied in no time.
const SMALL: usize = 4 << 10;

/// The whole body, as one piece of memory.
pub(super) async fn read(body: Incoming, limit: u64) -> Result<Bytes, Failure> {
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(Failure::BodyTooLarge { limit });
    }
    let begun = Instant::now();
    let mut body = pin!(body);
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    let mut length = 0_u64;
    loop {
        let deadline = begun + BODY_TIME + Duration::from_millis(length * 1000 / LEAST_RATE);
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Failure::SlowCaller),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Failure::BadRequest("the body broke off".to_owned())),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers say nothing that we need.
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > limit {
            return Err(Failure::BodyTooLarge { limit });
        }
        // A body in one piece, as small ones are, is not copied.
        match (first.take(), whole.is_empty()) {
            (None, true) => first = Some(data),
            (Some(before), _) => {
                // What the caller announces is not believed before it comes: memory grows with the bytes.
                let room = usize::try_from(announced.min(1 << 20)).unwrap_or(0);
                whole.reserve(room.max(before.len() + data.len()));
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&data);
            }
            (None, false) => whole.extend_from_slice(&data),
        }
    }
    Ok(first.map_or_else(|| whole.freeze(), unhooked))
}

/// A small body by itself: it came in the buffer that the connection reads into, 8 KiB, which
/// could not be used again for as long as the request takes.
fn unhooked(body: Bytes) -> Bytes {
    if body.len() < SMALL { Bytes::copy_from_slice(&body) } else { body }
}
