//! A stream of JSON objects in server-sent events, as our own daemon writes them.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{ClientError, Reply};

/// The largest event that is read: the whole state with hundreds of servers is
/// some hundred KiB.
const LARGEST_EVENT: usize = 16 << 20;

/// Events that are a `T` each.
#[derive(Debug)]
pub struct Feed<T> {
    events: Events,
    meaning: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Feed<T> {
    pub(super) fn new(body: Incoming) -> Self {
        Self { events: Events::new(body), meaning: PhantomData }
    }

    /// The next event; `None` when the daemon has ended the feed.
    pub async fn next(&mut self) -> Option<Result<Reply<T>, ClientError>> {
        Some(self.events.next().await?.map(Reply::new))
    }
}

/// The data of each server-sent event of a body.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    cutter: Cutter,
}

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, cutter: Cutter::default() }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        let broken =
            |message: String| Some(Err(ClientError::BrokenOff { code: None, message, raw: Bytes::new() }));
        loop {
            if let Some(data) = self.cutter.next() {
                return Some(Ok(data));
            }
            if self.cutter.bytes.len() > LARGEST_EVENT {
                return broken("an event without end".to_owned());
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.cutter.bytes.extend_from_slice(&chunk);
                    }
                }
                Err(_) => return broken("the connection to lovabled broke".to_owned()),
            }
        }
    }
}

/// Cuts bytes into lines, and lines into events.
#[derive(Debug, Default)]
struct Cutter {
    bytes: BytesMut,
    /// Up to here there is no line end.
    searched: usize,
    data: Option<BytesMut>,
}

impl Cutter {
    /// The data of the next whole event that has any.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.bytes[self.searched..]) else {
                self.searched = self.bytes.len();
                return None;
            };
            let line = self.bytes.split_to(self.searched + end);
            self.bytes.advance(1);
            self.searched = 0;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Some(data.freeze());
                }
            } else if let Some(text) = line.strip_prefix(b"data:") {
                let text = text.strip_prefix(b" ").unwrap_or(text);
                match &mut self.data {
                    None => self.data = Some(BytesMut::from(text)),
                    Some(data) => {
                        data.extend_from_slice(b"\n");
                        data.extend_from_slice(text);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(stream: &[u8], at: usize) -> Vec<Bytes> {
        let mut cutter = Cutter::default();
        let mut found = Vec::new();
        for part in [&stream[..at], &stream[at..]] {
            cutter.bytes.extend_from_slice(part);
            found.extend(std::iter::from_fn(|| cutter.next()));
        }
        found
    }

    #[test]
    fn cutting_at_any_byte_gives_the_same_events() {
        let stream = ": hello\n\ndata: {\"a\":\"ä\"}\n\nevent: x\r\ndata: 1\r\ndata: 2\r\n\r\ndata:[DONE]\n\ndata: torn";
        for at in 0..=stream.len() {
            assert_eq!(cut(stream.as_bytes(), at), ["{\"a\":\"ä\"}", "1\n2", "[DONE]"], "cut at {at}");
        }
    }
}
