//! A stream of JSON objects in server-sent events, as our own daemon writes them.

use std::marker::PhantomData;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{ClientError, Reply};
use crate::dialect::frames::{Cutter, Frame, FrameData};

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
        Self { body, cutter: Cutter::new(LARGEST_EVENT) }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        let broken =
            |message: String| Some(Err(ClientError::BrokenOff { code: None, message, raw: Bytes::new() }));
        loop {
            match self.cutter.next() {
                Some(Ok(Frame { data: FrameData::Event(data), .. })) => return Some(Ok(data)),
                Some(Ok(Frame { data: FrameData::Comment, .. })) => continue,
                Some(Ok(Frame { data: FrameData::Broken, .. })) => {
                    return broken("lovabled wrote something that is no event".to_owned());
                }
                Some(Err(_)) => return broken("an event without end".to_owned()),
                None => {}
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.cutter.push(chunk);
                    }
                }
                Err(_) => return broken("the connection to lovabled broke".to_owned()),
            }
        }
    }
}
