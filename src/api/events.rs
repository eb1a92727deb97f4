//! The feed, as server-sent events.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Response,
    body::Frame,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

use super::{Door, Knock, control};
use crate::{
    housekeeping::{Event, Follow, wall_ms},
    registry::Change,
    relay::Body,
    wire::{EventView, RequestView, rfc3339},
};

/// Between comments on a quiet feed, so that a reader can tell quiet from dead.
const QUIET: Duration = Duration::from_secs(15);

pub(super) async fn follow(knock: Knock) -> Response<Body> {
    let (door, sees) = (knock.door.clone(), knock.sees_only());
    let follow = door.house.follow();
    let stopping = door.stopping.clone();
    let feed = stream::unfold((door, follow, stopping), move |(door, mut follow, mut stopping)| async move {
        let piece = tokio::select! {
            // Somebody always watches; the feed must not keep a daemon that wants to leave.
            _ = stopping.wait_for(|stop| *stop) => return None,
            piece = next(&door, &mut follow, sees) => piece,
        };
        Some((Ok::<_, io::Error>(Frame::data(piece)), (door, follow, stopping)))
    });
    let mut response = Response::new(StreamBody::new(feed).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn next(door: &Arc<Door>, follow: &mut Follow, sees: Option<u32>) -> Bytes {
    let for_them = async {
        loop {
            let event = follow.next().await;
            match &*event {
                Event::Request(it) if sees.is_some_and(|uid| it.caller.uid != Some(uid)) => {}
                _ => return event,
            }
        }
    };
    let Ok(event) = tokio::time::timeout(QUIET, for_them).await else {
        return Bytes::from_static(b": quiet\n\n");
    };
    let at = rfc3339(wall_ms());
    let view = match &*event {
        Event::Everything => EventView::State { at, servers: control::server_views(door) },
        Event::Change(Change::Server { server }) => {
            EventView::Server { at, server: Box::new(control::server_view(door, server)) }
        }
        Event::Change(Change::Forgotten { id, .. }) => EventView::Forgotten { at, id: id.clone() },
        Event::Request(outcome) => {
            EventView::Request { at, request: Box::new(RequestView::from(&**outcome)) }
        }
    };
    match serde_json::to_string(&view) {
        Ok(text) => Bytes::from(format!("data: {text}\n\n")),
        Err(_) => Bytes::from_static(b": an event cannot be written\n\n"),
    }
}
