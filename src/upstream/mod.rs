//! The only room that opens connections to model servers.
//!
//! It sends what it is given where it is told, and says what came of it as a
//! `Fault` or a `Reply`. It knows no kinds, has no policy and follows no
//! redirect; no proxy from the environment ever sees a prompt. One thing it
//! does on its own: a kept connection that the server had closed meanwhile is
//! nobody's fault, so the same request is sent once more on a fresh one, and
//! both are one attempt. That happens only where the first sending surely went
//! out on a kept connection, failed at once and brought no head; and never with
//! what costs money.
//!
//! Each connection has its `Bounds`: how far its name may lead, and who has to be there. They
//! hold at the moment of connecting, whatever was known before, and a connection that was made
//! within some bounds is not used for a request within others.
//!
//! There is no total timeout anywhere: how long to wait for content is decided
//! by whoever holds the future. Dropping it, or a `Reply` whose body was not
//! read to the end, closes the connection at once; a model server takes that as
//! the caller's leaving and frees its slot.

mod client;
mod fault;
mod resolve;
mod verify;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use reqwest::{
    Method, Request, Response, Url, Version,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    fault::{Cause, Fault, Stage},
    kind::{Answer, Question},
    server::{Address, Bounds, Check, Endpoint, Pin, Zone},
    upstream::{
        client::{Clients, Dialled, Sort, Trust},
        fault::{fault_of, fault_of_io, is_closed_early},
        verify::Shown,
    },
};

/// How long after sending a close can still mean that the kept connection was
/// dead already. The reset of a dead connection is back within one round trip;
/// a server that held the request for longer had taken it, and has failed.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// Most endpoints whose clients are kept. A machine has a few servers; but one
/// whose tests start a server on a new port every minute must not fill memory.
const MOST_LANES: usize = 256;

/// Has TLS ready for whoever else makes a client of its own.
pub fn install_crypto() {
    client::install_crypto();
}

/// What the configuration says about connections.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Files (PEM) of certificate authorities that vouch for an endpoint, beside
    /// the system's.
    pub ca: BTreeMap<Endpoint, PathBuf>,
}

/// A server's own key. It is never shown, and goes only where it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The header that it is shown in.
    name: HeaderName,
    value: HeaderValue,
}

impl Key {
    /// Takes the key as it stands in a file or variable; `None` if it is empty
    /// or has characters that no header can carry.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        Self::shown(AUTHORIZATION, format!("Bearer {text}"))
    }

    /// The same for who wants it by itself in a header of this name.
    pub fn bare(text: &str, name: &'static str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() { None } else { Self::shown(HeaderName::from_static(name), text.to_owned()) }
    }

    fn shown(name: HeaderName, value: String) -> Option<Self> {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some(Self { name, value })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// One request to a server.
#[derive(Clone)]
pub struct Call<'a> {
    /// Where.
    pub endpoint: &'a Endpoint,
    /// Which route, with its slash.
    pub path: &'static str,
    /// What. Sent with its length, never in chunks.
    pub body: Bytes,
    /// All headers but `host`, `content-length` and `authorization`.
    pub headers: HeaderMap,
    /// The server's own key.
    pub key: Option<&'a Key>,
    /// How long a connection may take.
    pub connect: Duration,
    /// How far it may go, and who has to be there.
    pub bounds: Bounds,
    /// Whether it may be sent a second time where a kept connection was dead.
    pub again: bool,
    /// Whether it may still be sent, asked at the last moment; without it always.
    pub permit: Option<Permit>,
}

/// Says whether something may still be sent. A person may forbid it while a connection is made.
pub type Permit = Arc<dyn Fn() -> bool + Send + Sync>;

/// How much a probe may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From dialling to the last byte that is wanted.
    pub time: Duration,
    /// Of this, for the connection.
    pub connect: Duration,
    /// How far it may go, and who has to be there.
    pub bounds: Bounds,
    /// Bytes of the body that are read; the rest is not.
    pub bytes: usize,
}

/// An answer that has begun: its head is here, its body is coming.
pub struct Reply {
    status: u16,
    headers: HeaderMap,
    body: reqwest::Body,
}

impl Reply {
    fn of(response: Response) -> Self {
        let (head, body) = hyper::Response::from(response).into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The status, redirects included: none is ever followed.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers, until they are let go.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Lets the headers go: they hold the buffer that the head was read into, 8 KiB that the
    /// body can be read into instead.
    pub fn drop_headers(&mut self) {
        self.headers = HeaderMap::new();
    }

    /// The next piece of the body as it came from the network; `None` at its
    /// clean end.
    ///
    /// A fault carries the stage before content, since what is content is not
    /// known here; whoever judges it sets the stage right.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| fault_of(&error, Stage::FirstToken))?;
            // Trailers say nothing that is judged.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.status)
    }
}

/// Every connection to a model server begins here.
pub struct Upstream {
    known: Mutex<Known>,
}

/// Under one lock, so that nobody is connected to under a setting that holds no longer.
#[derive(Default)]
struct Known {
    settings: Settings,
    lanes: BTreeMap<(Endpoint, Bounds), Arc<Lane>>,
    clients: BTreeMap<Sort, Arc<Clients>>,
}

/// What is worked out once per endpoint and bounds.
struct Lane {
    clients: Arc<Clients>,
    /// Full URLs by route; there are as many as the source has route literals.
    urls: Mutex<Vec<(&'static str, Url)>>,
}

impl Upstream {
    /// Prepares the clients; nothing is connected yet.
    ///
    /// Roots for TLS are loaded only when the first `https` endpoint is asked:
    /// they cost megabytes and milliseconds that a machine with local servers
    /// need not spend.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        let upstream = Self { known: Mutex::new(Known { settings, ..Known::default() }) };
        // Whoever cannot have these can have none.
        let plain = Sort { trust: Trust::Nobody, reach: Zone::Cloud, socket: None };
        let clients = Arc::new(Clients::new(&plain)?);
        upstream.known().clients.insert(plain, clients);
        Ok(upstream)
    }

    /// Takes over what the configuration says now. Where an authority of its own vouches for
    /// an endpoint, or did, the next request connects anew: its file may say something else.
    pub fn configure(&self, settings: Settings) {
        let mut known = self.known();
        let old = std::mem::replace(&mut known.settings, settings);
        let Known { settings, lanes, clients } = &mut *known;
        lanes.retain(|(it, _), _| !old.ca.contains_key(it) && !settings.ca.contains_key(it));
        clients.retain(|it, _| !matches!(it.trust, Trust::Also(_)));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, call: Call<'_>) -> Result<Reply, Fault> {
        let lane = self.lane(call.endpoint, call.bounds)?;
        let url = lane.url(call.endpoint, call.path)?;
        let mut request = Request::new(Method::POST, url);
        *request.headers_mut() = call.headers;
        if let Some(key) = call.key {
            request.headers_mut().insert(key.name.clone(), key.value.clone());
        }
        *request.body_mut() = Some(call.body.into());
        // Headers and body are shared buffers or small: this copies no prompt.
        let again = request.try_clone().filter(|_| call.again);

        if call.permit.as_ref().is_some_and(|may_send| !may_send()) {
            return Err(Fault::new(Stage::Connect, Cause::Barred));
        }
        let dialled = Dialled::new(call.connect, call.permit.clone());
        let began = Instant::now();
        let error = match dialled.during(lane.clients.pooled.execute(request)).await {
            Ok(response) => return Ok(Reply::of(response)),
            Err(error) => error,
        };
        let stale = !dialled.is_connected() && is_closed_early(&error) && began.elapsed() < STALE_WITHIN;
        let Some(again) = again.filter(|_| stale) else {
            return Err(fault_of(&error, Stage::Head));
        };
        match Dialled::new(call.connect, call.permit).during(lane.clients.fresh.execute(again)).await {
            Ok(response) if response.version() == Version::HTTP_09 => {
                Err(Fault::new(Stage::Head, Cause::BadHead))
            }
            Ok(response) => Ok(Reply::of(response)),
            Err(error) => Err(fault_of(&error, Stage::Head)),
        }
    }

    /// Asks a probe's question on a connection of its own.
    ///
    /// What answers, but not in HTTP, is `BadHead`; a TLS alert is `Tls`, since
    /// behind a port that wants TLS there may be a server all the same.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        question: &Question,
        key: Option<&Key>,
        limits: Limits,
    ) -> Result<Answer, Fault> {
        let lane = self.lane(endpoint, limits.bounds)?;
        // Trust may have gone since the key was taken out; then anybody may be there.
        let key = key.filter(|_| limits.bounds.check != Check::Nobody);
        self.ask_by(&lane.clients, endpoint, question, key, limits, None).await
    }

    /// Asks what holds a prompt, or a part of one, in the same way; asked at the last moment
    /// whether it may still be sent.
    pub async fn ask_if(
        &self,
        permit: Permit,
        endpoint: &Endpoint,
        question: &Question,
        key: Option<&Key>,
        limits: Limits,
    ) -> Result<Answer, Fault> {
        if !permit() {
            return Err(Fault::new(Stage::Connect, Cause::Barred));
        }
        let lane = self.lane(endpoint, limits.bounds)?;
        self.ask_by(&lane.clients, endpoint, question, key, limits, Some(permit)).await
    }

    /// The key that the server there shows now, whoever vouches for it. Nothing is sent to it
    /// that anybody may not see.
    pub async fn tls_key(&self, endpoint: &Endpoint, limits: Limits) -> Result<Pin, Fault> {
        let bounds = Bounds { check: Check::Nobody, ..limits.bounds };
        let sort = self.known().sort(endpoint, bounds)?;
        let shown = Shown::default();
        let clients = Clients::noting(&sort, shown.clone())?;
        let asked = self.ask_by(&clients, endpoint, &Question::get("/"), None, limits, None).await;
        let pin = *shown.lock().unwrap_or_else(PoisonError::into_inner);
        // What it says after it has shown its key is of no interest.
        pin.ok_or_else(|| asked.err().unwrap_or(Fault::new(Stage::Connect, Cause::Tls)))
    }

    async fn ask_by(
        &self,
        clients: &Clients,
        endpoint: &Endpoint,
        question: &Question,
        key: Option<&Key>,
        limits: Limits,
        permit: Option<Permit>,
    ) -> Result<Answer, Fault> {
        let url = parse_url(endpoint, &question.path)?;
        let mut request = Request::new(Method::GET, url);
        let headers = request.headers_mut();
        // A llama.cpp with its web page inside answers 415 to whoever does not
        // take gzip, on `/` alone.
        let encoding = if question.path == "/" { "gzip" } else { "identity" };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        if let Some(key) = key {
            headers.insert(key.name.clone(), key.value.clone());
        }
        for (name, value) in question.headers {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if let Some(body) = &question.post {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.method_mut() = Method::POST;
            *request.body_mut() = Some(body.clone().into());
        }
        let mut stage = Stage::Head;
        let answering = async {
            let response = Dialled::new(limits.connect, permit)
                .during(clients.fresh.execute(request))
                .await
                .map_err(|error| fault_of(&error, Stage::Head))?;
            stage = Stage::FirstToken;
            read_answer(response, limits.bytes).await
        };
        match timeout(limits.time, answering).await {
            Ok(result) => result,
            Err(_) => Err(Fault::new(stage, Cause::FirstTokenTimeout)),
        }
    }

    /// Whether somebody takes connections there. Nothing is said on it; names are not looked
    /// up for it.
    pub async fn reach(&self, endpoint: &Endpoint, limit: Duration) -> Result<(), Fault> {
        match timeout(limit, TcpStream::connect(address(endpoint)?)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fault_of_io(&error)),
            Err(_) => Err(Fault::new(Stage::Connect, Cause::ConnectTimeout)),
        }
    }

    /// The same for a thread that waits itself; `None` where that took too long to tell.
    pub fn reach_at_once(endpoint: &Endpoint, limit: Duration) -> Option<Result<(), Fault>> {
        let address = match address(endpoint) {
            Ok(address) => address,
            Err(fault) => return Some(Err(fault)),
        };
        match std::net::TcpStream::connect_timeout(&address, limit) {
            Ok(_) => Some(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            Err(error) => Some(Err(fault_of_io(&error))),
        }
    }

    fn lane(&self, endpoint: &Endpoint, bounds: Bounds) -> Result<Arc<Lane>, Fault> {
        let mut known = self.known();
        let place = (endpoint.clone(), bounds);
        if let Some(lane) = known.lanes.get(&place) {
            return Ok(lane.clone());
        }
        let sort = known.sort(endpoint, bounds)?;
        if known.lanes.len() >= MOST_LANES {
            known.lanes.clear();
            known.clients.clear();
        }
        let clients = match known.clients.get(&sort) {
            Some(clients) => clients.clone(),
            None => {
                let clients = Arc::new(Clients::new(&sort)?);
                known.clients.insert(sort, clients.clone());
                clients
            }
        };
        let lane = Arc::new(Lane { clients, urls: Mutex::default() });
        known.lanes.insert(place, lane.clone());
        Ok(lane)
    }
}

impl Known {
    /// The sort of clients that may connect there. An address that is too far away by itself
    /// has none.
    fn sort(&self, endpoint: &Endpoint, bounds: Bounds) -> Result<Sort, Fault> {
        let tls = match endpoint.address() {
            Address::Tcp { tls, .. } => *tls,
            Address::Unix(path) => {
                let socket = Some(path.clone());
                return Ok(Sort { trust: Trust::Nobody, reach: Zone::Machine, socket });
            }
        };
        // What is no address to us may be one in a URL: `0x8080808` is.
        let url = parse_url(endpoint, "/")?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let reach = match host.parse().map(Zone::of) {
            Ok(zone) if zone > bounds.reach => return Err(Fault::new(Stage::Connect, Cause::TooFar)),
            // It leads nowhere else, and so shares with all that are addresses.
            Ok(_) => Zone::Cloud,
            Err(_) => bounds.reach,
        };
        let trust = match (tls, bounds.check) {
            (false, _) => Trust::Nobody,
            (true, Check::Pin(pin)) => Trust::Key(pin),
            (true, Check::Nobody) => Trust::Anybody,
            (true, Check::Authorities) => match self.settings.ca.get(endpoint) {
                Some(file) => Trust::Also(file.clone()),
                None => Trust::System,
            },
        };
        Ok(Sort { trust, reach, socket: None })
    }
}

impl Lane {
    fn url(&self, endpoint: &Endpoint, path: &'static str) -> Result<Url, Fault> {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, url)) = urls.iter().find(|(it, _)| *it == path) {
            return Ok(url.clone());
        }
        let url = parse_url(endpoint, path)?;
        urls.push((path, url.clone()));
        Ok(url)
    }
}

/// A host that no URL can hold is an address that nobody can reach.
fn parse_url(endpoint: &Endpoint, path: &str) -> Result<Url, Fault> {
    Url::parse(&endpoint.url(path)).map_err(|_| Fault::new(Stage::Connect, Cause::Unreachable))
}

fn address(endpoint: &Endpoint) -> Result<SocketAddr, Fault> {
    let at = endpoint.ip().zip(endpoint.port());
    at.map(SocketAddr::from).ok_or(Fault::new(Stage::Connect, Cause::Internal))
}

async fn read_answer(mut response: Response, limit: usize) -> Result<Answer, Fault> {
    let spoken_http = response.version() != Version::HTTP_09;
    let at = response.remote_addr().map(|it| it.ip());
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let mut body = BytesMut::new();
    while body.len() < limit {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]),
            Ok(None) => break,
            // What is no HTTP is judged by what came of it.
            Err(_) if !spoken_http => break,
            Err(error) => return Err(fault_of(&error, Stage::FirstToken)),
        }
        if !spoken_http {
            break;
        }
    }
    if spoken_http {
        let answer = Answer { status, headers, body: body.freeze(), at };
        return Ok(if answer.header("content-encoding") == Some("gzip") {
            unpacked(answer, limit)
        } else {
            answer
        });
    }
    // A record of type 21 and major version 3 is a TLS alert.
    let cause = if body.starts_with(&[0x15, 0x03]) { Cause::Tls } else { Cause::BadHead };
    Err(Fault::new(Stage::Head, cause))
}

/// What a packed body says, as far as it was read and no more than may be read.
fn unpacked(answer: Answer, limit: usize) -> Answer {
    let mut body = Vec::new();
    // What is broken or cut off says what came out of it until there.
    let _ = GzDecoder::new(&answer.body[..]).take(limit as u64).read_to_end(&mut body);
    Answer { body: body.into(), ..answer }
}

#[cfg(test)]
mod tests;
