//! The door: the route table, limits, and who may come in. It decides nothing
//! about models or servers.
//!
//! `TABLE` is the one list of routes; dispatch, `Allow` headers and the OpenAPI
//! description are all derived from it. A route is one entry and one function.

mod body;
mod connection;
mod control;
mod cors;
mod errand;
mod events;
mod export;
mod history;
mod listing;
mod metrics;
mod ollama;
mod openapi;
mod operations;
mod table;
mod tokens;
mod tongue;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Serialize;
use tokio::sync::watch;

pub(crate) use self::{connection::serve, table::changes, tongue::shape_of};
use self::{
    cors::Cors,
    table::{Found, Guard},
};
use crate::{
    config::Token,
    fault::Failure,
    housekeeping::{Housekeeping, wall_ms},
    postgres::Sharing,
    relay::{Body, Relay, Shape, full, refusal},
    service::tcp::{Foreign, foreign},
    wire::ConfigView,
};

/// What every reply names itself.
pub(crate) const SERVER: &str = concat!("lovable/", env!("CARGO_PKG_VERSION"));
const INSTANCE: HeaderName = HeaderName::from_static("x-lovable-instance");
const VIA: &str = "x-lovable-via";

/// How a caller came in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// Over the Unix socket, whose modes and peer check have let it in.
    Socket {
        /// Whether it may change something.
        may_change: bool,
        /// The user on the other side.
        uid: Option<u32>,
    },
    /// Over TCP, where names and origins are checked too.
    Tcp {
        /// Who that is.
        who: Who,
        /// The address of this machine that it came to.
        local: IpAddr,
        /// Whether people share the daemon, of whom each sees only their own requests.
        shared: bool,
    },
}

/// Who comes over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A user of this machine who may open the socket.
    User,
    /// A user of this machine who may not; the token lets them in.
    Stranger,
    /// Somebody outside; only the token lets them in.
    Outside,
}

/// What the door needs to know of the house.
pub(crate) struct Furnishing {
    pub(crate) house: Arc<Housekeeping>,
    pub(crate) sharing: Arc<Sharing>,
    pub(crate) relay: Arc<Relay>,
    /// Names and addresses of this daemon, for `status`.
    pub(crate) socket: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) instance: String,
    /// Turns true when the daemon stops: what never ends by itself must end then.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) settings: Settings,
}

/// What the door is told by the configuration.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// All settings, for who asks for them.
    pub(crate) view: ConfigView,
    pub(crate) aliases: BTreeMap<String, String>,
    /// The most bytes of a body.
    pub(crate) body_limit: u64,
    /// Host names that are fine on TCP beside the loopback ones.
    pub(crate) hosts: Vec<String>,
    /// Origins that are fine on TCP.
    pub(crate) origins: Vec<String>,
    /// Whether TCP callers may change something.
    pub(crate) control_on_tcp: bool,
    /// What lets in who may not open the socket.
    pub(crate) token: Option<Token>,
    /// Whether others may come from outside of this machine, with the token.
    pub(crate) allow_remote: bool,
    /// What is wrong with the configuration: a setting that is not honoured, an edit that is broken.
    pub(crate) notes: Vec<String>,
}

/// Answers callers.
pub(crate) struct Door {
    house: Arc<Housekeeping>,
    sharing: Arc<Sharing>,
    relay: Arc<Relay>,
    socket: PathBuf,
    listen: Option<SocketAddr>,
    instance: String,
    stopping: watch::Receiver<bool>,
    settings: ArcSwap<Settings>,
    started: Instant,
    started_ms: u64,
    instance_header: HeaderValue,
    ids: AtomicU64,
}

/// One request on its way to a route.
struct Knock {
    door: Arc<Door>,
    headers: HeaderMap,
    query: String,
    /// What stood in the place of `{...}` in the path, decoded.
    rest: String,
    body: Incoming,
    request_id: String,
    shape: Shape,
    peer: Peer,
}

impl Door {
    pub(crate) fn new(it: Furnishing, started: Instant, seed: u64) -> Arc<Self> {
        let instance_header =
            HeaderValue::from_str(&it.instance).unwrap_or_else(|_| HeaderValue::from_static("unnamed"));
        let Furnishing { house, sharing, relay, socket, listen, instance, stopping, settings } = it;
        Arc::new(Self {
            house,
            sharing,
            relay,
            socket,
            listen,
            instance,
            stopping,
            settings: ArcSwap::from_pointee(settings),
            started,
            started_ms: wall_ms(),
            instance_header,
            ids: AtomicU64::new(seed),
        })
    }

    /// Takes over what the configuration says now.
    pub(crate) fn configure(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// What the configuration says; whoever asks for it twice may get two.
    fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Waits until servers were looked for once, where none is known yet.
    async fn until_looked(&self) {
        if self.house.snapshot().servers.is_empty() {
            self.house.looked_around().await;
        }
    }

    /// How many requests are being carried out.
    pub(crate) fn running(&self) -> usize {
        self.relay.running()
    }

    /// When we came to know of models, as far as clients of OpenAI care: whole seconds since 1970.
    fn started_at_seconds(&self) -> u64 {
        self.started_ms / 1000
    }

    pub(crate) fn new_request_id(&self) -> String {
        // A Weyl sequence, scrambled: unique for as long as the process lives, and not guessable in order.
        let mut z = self.ids.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        format!("req-{:016x}", z ^ (z >> 31))
    }

    /// Answers one request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let instance = self.instance_header.clone();
        let is_anthropic = tongue::is_anthropic(request.uri().path(), request.headers());
        let cors = match peer {
            Peer::Tcp { who: Who::User, .. } => Cors::of(request.headers(), &self.settings.load().origins),
            Peer::Tcp { .. } if self.shows_token(request.headers()) => {
                Cors::of(request.headers(), &self.settings.load().origins)
            }
            Peer::Socket { .. } | Peer::Tcp { .. } => None,
        };
        let mut response = self.route(request, peer, cors.as_ref()).await;
        let headers = response.headers_mut();
        if let Some(cors) = cors {
            cors.mark(headers);
        }
        headers.insert(hyper::header::SERVER, HeaderValue::from_static(SERVER));
        headers.insert(INSTANCE, instance);
        // Where SDKs of that language look for it.
        if is_anthropic && let Some(id) = headers.get("x-lovable-request-id").cloned() {
            headers.insert("request-id", id);
        }
        response
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        cors: Option<&Cors>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let request_id = self.request_id(&parts.headers);
        let path = parts.uri.path();
        let shape = shape_of(path, &parts.headers);
        let refuse = |failure: &Failure| refusal(failure, shape, &request_id);
        if let Err(failure) = self.admit(peer, &parts) {
            return refuse(&failure);
        }
        if let Some(answer) = cors.and_then(|it| it.preflight(&parts.method, &parts.headers)) {
            return answer;
        }
        let route = match table::find(&parts.method, path) {
            Found::Route(route) => route,
            Found::OtherMethod(allow) => return refuse(&Failure::WrongMethod { allow }),
            Found::Nothing => {
                let failure = ollama::manages(path);
                return refuse(&failure.unwrap_or_else(|| Failure::UnknownRoute(path.to_owned())));
            }
        };
        if route.guard == Guard::Changes
            && let Err(failure) = self.admit_change(peer)
        {
            return refuse(&failure);
        }
        let Ok(rest) = table::rest(route, path) else {
            return refuse(&Failure::BadRequest("the path is not valid percent-encoded UTF-8".to_owned()));
        };
        if !route.is_of_a_watcher() {
            self.house.on_wanted();
        }
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let knock =
            Knock { door: self.clone(), headers: parts.headers, query, rest, body, request_id, shape, peer };
        (route.handler)(knock).await
    }

    /// The caller's own id, if it is fit to be shown, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> String {
        let theirs = headers.get("x-request-id").and_then(|it| it.to_str().ok());
        match theirs {
            Some(id) if !id.is_empty() && id.len() <= 128 && id.bytes().all(|it| it.is_ascii_graphic()) => {
                id.to_owned()
            }
            _ => self.new_request_id(),
        }
    }

    /// Whether the caller may come in at all.
    fn admit(&self, peer: Peer, parts: &hyper::http::request::Parts) -> Result<(), Failure> {
        let headers = &parts.headers;
        if hops(headers).any(|it| it == self.instance) {
            return Err(Failure::Loop);
        }
        let Peer::Tcp { who, local, .. } = peer else { return Ok(()) };
        let settings = self.settings.load();
        match foreign(headers, &parts.uri, local, &settings.hosts, &settings.origins) {
            None => {}
            Some(Foreign::Host) => {
                return Err(Failure::Forbidden(
                    "this Host is not one of mine; use 127.0.0.1, localhost or a name in [listen] hosts"
                        .to_owned(),
                ));
            }
            Some(Foreign::Page) => {
                return Err(Failure::Forbidden(
                    "requests of web pages are refused; see [listen] origins".to_owned(),
                ));
            }
        }
        match who {
            Who::User => Ok(()),
            // The door that is open since the start may be wider than is allowed by now.
            Who::Outside if !settings.allow_remote => Err(Failure::Forbidden(
                "nobody may come from outside this machine; see [listen] allow_remote".to_owned(),
            )),
            _ if self.shows_token(headers) => Ok(()),
            Who::Stranger => Err(Failure::Forbidden(
                "your user may not use this daemon, whose socket is private; its token is wanted".to_owned(),
            )),
            Who::Outside => Err(Failure::WrongKey(
                "from outside this machine the token of the daemon is wanted: Authorization: Bearer TOKEN"
                    .to_owned(),
            )),
        }
    }

    /// Whether a caller shows the token, in either way that clients show their keys.
    fn shows_token(&self, headers: &HeaderMap) -> bool {
        let settings = self.settings.load();
        let Some(token) = &settings.token else { return false };
        let bearer = headers.get_all(hyper::header::AUTHORIZATION).iter().any(|it| {
            let (scheme, rest) = it.as_bytes().split_at_checked(7).unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"bearer ") && token.is(rest.trim_ascii())
        });
        bearer || headers.get_all("x-api-key").iter().any(|it| token.is(it.as_bytes().trim_ascii()))
    }

    /// Whether a caller who is in may change something.
    fn admit_change(&self, peer: Peer) -> Result<(), Failure> {
        let (may_change, why) = match peer {
            Peer::Socket { may_change, .. } => {
                (may_change, "this changes something, which needs root or the daemon's own user")
            }
            Peer::Tcp { .. } => (
                self.settings.load().control_on_tcp,
                "this changes something, which is only possible over the socket; see [listen] control",
            ),
        };
        if may_change { Ok(()) } else { Err(Failure::Forbidden(why.to_owned())) }
    }
}

impl Knock {
    /// A parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// The user who asks, where that is known.
    fn uid(&self) -> Option<u32> {
        match self.peer {
            Peer::Socket { uid, .. } => uid,
            Peer::Tcp { .. } => None,
        }
    }

    /// Whose requests may be seen, where it is not everybody's: where others use the daemon as
    /// well, only who may change something sees theirs.
    fn sees_only(&self) -> Option<u32> {
        match self.peer {
            Peer::Socket { may_change: false, uid } => Some(uid.unwrap_or(u32::MAX)),
            // Nobody there is known by their user, and so none of the requests is theirs.
            Peer::Tcp { shared: true, .. } if !self.door.settings().control_on_tcp => Some(u32::MAX),
            Peer::Socket { may_change: true, .. } | Peer::Tcp { .. } => None,
        }
    }

    fn refuse(&self, failure: &Failure) -> Response<Body> {
        refusal(failure, self.shape, &self.request_id)
    }
}

/// The daemons that a request has passed, by their instance ids. One may have added a line of
/// its own rather than lengthen the one that was there.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(VIA).iter().filter_map(|it| it.to_str().ok());
    lines.flat_map(|it| it.split(',')).map(str::trim).filter(|it| !it.is_empty())
}

/// An answer in JSON.
fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            bytes_of_json(status, bytes)
        }
        Err(error) => {
            tracing::error!(%error, "an answer of ours cannot be written as JSON");
            refusal(&Failure::Internal, Shape::Own, "")
        }
    }
}

fn bytes_of_json(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
