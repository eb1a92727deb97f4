//! The feed, as server-sent events.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

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
    housekeeping::{Event, Follow, Started, wall_ms},
    registry::Change,
    relay::Body,
    server::ModelName,
    wire::{BegunView, EventView, HardwareView, ModelView, RequestView, rfc3339},
};

/// Between comments on a quiet feed, so that a reader can tell quiet from dead.
const QUIET: Duration = Duration::from_secs(15);

pub(super) async fn follow(knock: Knock) -> Response<Body> {
    let sees = knock.sees_only();
    let follow = knock.door.house.follow();
    let stopping = knock.door.stopping.clone();
    let reader = Reader { door: knock.door, follow, sees, models: BTreeMap::new(), ready: VecDeque::new() };
    let feed = stream::unfold((reader, stopping), move |(mut reader, mut stopping)| async move {
        let piece = tokio::select! {
            // Somebody always watches; the feed must not keep a daemon that wants to leave.
            _ = stopping.wait_for(|stop| *stop) => return None,
            piece = reader.next() => piece,
        };
        Some((Ok::<_, io::Error>(Frame::data(piece)), (reader, stopping)))
    });
    let mut response = Response::new(StreamBody::new(feed).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One who listens.
struct Reader {
    door: Arc<Door>,
    follow: Follow,
    /// Whose requests it may see, where it is not everybody's.
    sees: Option<u32>,
    /// The models that it knows of, for what changes is servers.
    models: BTreeMap<ModelName, ModelView>,
    /// What else is to be told of a change.
    ready: VecDeque<EventView>,
}

impl Reader {
    async fn next(&mut self) -> Bytes {
        let view = match self.ready.pop_front() {
            Some(view) => view,
            None => match tokio::time::timeout(QUIET, self.event()).await {
                Ok(event) => self.view(&event),
                Err(_) => return Bytes::from_static(b": quiet\n\n"),
            },
        };
        match serde_json::to_string(&view) {
            Ok(text) => Bytes::from(format!("data: {text}\n\n")),
            Err(_) => Bytes::from_static(b": an event cannot be written\n\n"),
        }
    }

    /// The next event that is for them.
    async fn event(&mut self) -> Arc<Event> {
        loop {
            let event = self.follow.next().await;
            let is_theirs = match &*event {
                Event::Request(it) => self.may_see(it.caller.uid),
                Event::Begun(it) => self.may_see(it.caller.uid),
                Event::Everything { .. } | Event::Change(_) | Event::Hardware(_) => true,
            };
            if is_theirs {
                return event;
            }
        }
    }

    fn may_see(&self, uid: Option<u32>) -> bool {
        self.sees.is_none_or(|it| uid == Some(it))
    }

    fn view(&mut self, event: &Event) -> EventView {
        let at = rfc3339(wall_ms());
        match event {
            Event::Everything { missed } => self.state(at, *missed),
            Event::Change(Change::Server { server }) => {
                self.compare_models(&at);
                EventView::Server { at, server: Box::new(control::server_view(&self.door, server)) }
            }
            Event::Change(Change::Forgotten { id, .. }) => {
                self.compare_models(&at);
                EventView::Forgotten { at, id: id.clone() }
            }
            Event::Begun(it) => EventView::Begun { at, request: Box::new(begun(it)) },
            Event::Request(outcome) => {
                EventView::Request { at, request: Box::new(RequestView::from(&**outcome)) }
            }
            Event::Hardware(it) => EventView::Hardware { at, hardware: HardwareView::from(&**it) },
        }
    }

    fn state(&mut self, at: String, missed: Option<u64>) -> EventView {
        let house = &self.door.house;
        let models = control::model_list(&self.door);
        self.models = models.iter().map(|it| (it.name.clone(), it.clone())).collect();
        let running = house.running();
        let theirs = running.iter().filter(|it| self.may_see(it.caller.uid));
        EventView::State {
            at,
            missed,
            servers: control::server_views(&self.door),
            models,
            requests: theirs.map(|it| begun(it)).collect(),
            hardware: house.hardware_seen().map(|it| HardwareView::from(&*it)),
        }
    }

    /// Has what is different with models told after what is different with servers.
    fn compare_models(&mut self, at: &str) {
        let now = control::model_list(&self.door).into_iter().map(|it| (it.name.clone(), it)).collect();
        let before = std::mem::replace(&mut self.models, now);
        let is_news = |it: &&ModelView| before.get(&it.name) != Some(it);
        for model in self.models.values().filter(is_news) {
            self.ready.push_back(EventView::Model { at: at.to_owned(), model: Box::new(model.clone()) });
        }
        for name in before.into_keys().filter(|it| !self.models.contains_key(it)) {
            self.ready.push_back(EventView::ModelGone { at: at.to_owned(), name });
        }
    }
}

fn begun(it: &Started) -> BegunView {
    BegunView {
        request_id: it.request_id.clone(),
        at: rfc3339(it.at_ms),
        caller: it.caller.program.clone(),
        uid: it.caller.uid,
        dialect: it.dialect.to_owned(),
        operation: it.operation,
        asked: it.asked.clone(),
        stream: it.stream,
    }
}
