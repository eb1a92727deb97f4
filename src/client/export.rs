//! An export as it comes: in pieces, or line by line.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::ClientError;

/// An export without end would fill the memory only if one line did.
const LONGEST_LINE: usize = 64 << 20;

/// All requests, one line each.
#[derive(Debug)]
pub struct Export {
    body: Incoming,
    rest: BytesMut,
}

impl Export {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, rest: BytesMut::new() }
    }

    /// The next piece; `None` at the end. A piece may end within a line.
    pub async fn piece(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(piece) = frame.into_data() {
                        return Some(Ok(piece));
                    }
                }
                Err(_) => return Some(Err(broken("the connection to lovabled broke"))),
            }
        }
    }

    /// The next line without its end; `None` at the end.
    pub async fn line(&mut self) -> Option<Result<Bytes, ClientError>> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.rest[seen..]) {
                let line = self.rest.split_to(seen + at + 1);
                return Some(Ok(line.freeze().slice(..seen + at)));
            }
            seen = self.rest.len();
            match self.piece().await {
                Some(Ok(piece)) => self.rest.extend_from_slice(&piece),
                Some(Err(error)) => return Some(Err(error)),
                None if seen > 0 => return Some(Err(broken("the last line has no end"))),
                None => return None,
            }
            if self.rest.len() > LONGEST_LINE {
                return Some(Err(broken("a line has no end")));
            }
        }
    }
}

fn broken(message: &str) -> ClientError {
    ClientError::BrokenOff { code: None, message: message.to_owned(), raw: Bytes::new() }
}
