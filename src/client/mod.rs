//! The typed client of our own API over the socket; every face uses it.
//!
//! A method per control route. What comes back is a [`Reply`]: the bytes as the
//! API said them, and what they mean once somebody asks. Nothing is printed
//! here, and no error is turned into a sentence for a particular face.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::{client::legacy, rt::TokioExecutor};
use hyperlocal::UnixConnector;
use serde::de::DeserializeOwned;

use crate::wire::{
    AddServer, Added, CompareView, ConfigView, ErrorBody, EventView, GenerateBody, ModelList, ModelView,
    PinWish, RequestList, RequestView, ServerList, ServerView, StatsList, Status, TrustServer,
};

mod answer;
mod export;
mod feed;
mod passage;

pub use answer::{Answer, AnsweredBy, Piece, Stream};
pub use export::Export;
pub use feed::Feed;
pub use passage::Passage;

/// A health check must not hang: a daemon that does not say how it is within
/// this time is as good as gone.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Control routes answer from memory; only `add` and `probe` wait for servers,
/// and those waits are bounded well below this.
const CONTROL_PATIENCE: Duration = Duration::from_secs(30);

/// The largest reply that is read whole: far above any list, far below memory.
const LARGEST_REPLY: usize = 64 << 20;

/// A connection to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    http: legacy::Client<UnixConnector, Full<Bytes>>,
    patience: Option<Duration>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody takes connections there.
    #[error("cannot reach lovabled at {}: {source}", socket.display())]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took the connection and then said nothing.
    #[error("lovabled at {} does not answer within {:.1} s", socket.display(), after.as_secs_f64())]
    Silent {
        /// The socket that was tried.
        socket: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// It hung up, or does not speak HTTP.
    #[error("lovabled at {} hung up: {source}", socket.display())]
    HungUp {
        /// The socket that was tried.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered that it will not or cannot.
    #[error("{message}")]
    Api {
        /// Status.
        status: u16,
        /// A word for programs.
        code: String,
        /// A sentence for people.
        message: String,
        /// The body as it was.
        raw: Bytes,
    },
    /// The answer began and was broken off.
    #[error("the answer broke off: {message}")]
    BrokenOff {
        /// A word for programs, where the daemon gave one.
        code: Option<String>,
        /// A sentence for people.
        message: String,
        /// The event that said so; empty where the connection broke.
        raw: Bytes,
    },
    /// The reply is not what this version of lovable expects.
    #[error("cannot read the reply of lovabled ({0}); are both of the same version?")]
    Unreadable(String),
}

/// What the API said to a question whose answer is a `T`.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    raw: Bytes,
    meaning: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reply<T> {
    fn new(raw: Bytes) -> Self {
        Self { raw, meaning: PhantomData }
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What they mean.
    pub fn read(&self) -> Result<T, ClientError> {
        // Line and column tell where; serde's own message could quote a value.
        serde_json::from_slice(&self.raw).map_err(|error| {
            ClientError::Unreadable(format!("line {}, column {}", error.line(), error.column()))
        })
    }
}

/// Which outcomes are summed up, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsQuery {
    /// What is grouped by.
    pub by: Option<String>,
    /// Not before this moment, RFC 3339.
    pub since: Option<String>,
    /// Before this moment, RFC 3339.
    pub until: Option<String>,
    /// Only this server.
    pub server: Option<String>,
    /// Only this model.
    pub model: Option<String>,
    /// Only this program.
    pub caller: Option<String>,
}

impl StatsQuery {
    fn pairs(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("by", self.by.as_deref()),
            ("since", self.since.as_deref()),
            ("until", self.until.as_deref()),
            ("server", self.server.as_deref()),
            ("model", self.model.as_deref()),
            ("caller", self.caller.as_deref()),
        ]
    }
}

/// A path with those parameters that have a value.
fn with_query(path: &str, pairs: &[(&str, Option<&str>)]) -> String {
    let pairs = pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", segment((*value)?))));
    let pairs: Vec<_> = pairs.collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("{path}{mark}{}", pairs.join("&"))
}

/// By what name we are counted.
const AGENT: &str = concat!("lovablectl/", env!("CARGO_PKG_VERSION"));

impl Client {
    /// A client of the daemon at `socket`. Nothing is connected until something is asked.
    pub fn new(socket: &Path) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build(UnixConnector);
        Self { socket: socket.to_owned(), http, patience: None }
    }

    /// The same with another patience for every question.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The socket that it asks.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the daemon is. Gives up after two seconds.
    pub async fn status(&self) -> Result<Reply<Status>, ClientError> {
        self.ask(Method::GET, "/lovable/v1/status", None, STATUS_PATIENCE).await
    }

    /// All servers.
    pub async fn servers(&self) -> Result<Reply<ServerList>, ClientError> {
        self.get("/lovable/v1/servers").await
    }

    /// One server.
    pub async fn server(&self, id: &str) -> Result<Reply<ServerView>, ClientError> {
        self.get(&format!("/lovable/v1/servers/{}", segment(id))).await
    }

    /// Makes an address known.
    pub async fn add_server(&self, url: &str) -> Result<Reply<Added>, ClientError> {
        let body = json(&AddServer { url: url.to_owned() });
        self.ask(Method::POST, "/lovable/v1/servers", Some(body), CONTROL_PATIENCE).await
    }

    /// Forgets a server. It comes back under a new id should it be found again.
    pub async fn forget(&self, id: &str) -> Result<Reply<serde_json::Value>, ClientError> {
        let path = format!("/lovable/v1/servers/{}", segment(id));
        self.ask(Method::DELETE, &path, None, CONTROL_PATIENCE).await
    }

    /// Sends a server nothing new.
    pub async fn drain(&self, id: &str) -> Result<Reply<ServerView>, ClientError> {
        self.post(&format!("/lovable/v1/servers/{}/drain", segment(id))).await
    }

    /// Takes a drained server back.
    pub async fn resume(&self, id: &str) -> Result<Reply<ServerView>, ClientError> {
        self.post(&format!("/lovable/v1/servers/{}/resume", segment(id))).await
    }

    /// Trusts a server as what it is now, if wanted with the TLS key that it shows.
    pub async fn trust(&self, id: &str, pin: bool) -> Result<Reply<ServerView>, ClientError> {
        let body = json(&TrustServer { pin: PinWish::Shown(pin) });
        let path = format!("/lovable/v1/servers/{}/trust", segment(id));
        self.ask(Method::POST, &path, Some(body), CONTROL_PATIENCE).await
    }

    /// Gives a server no prompt and no key.
    pub async fn distrust(&self, id: &str) -> Result<Reply<ServerView>, ClientError> {
        self.post(&format!("/lovable/v1/servers/{}/distrust", segment(id))).await
    }

    /// Has every known address asked again now.
    pub async fn probe(&self) -> Result<Reply<serde_json::Value>, ClientError> {
        self.post("/lovable/v1/probe").await
    }

    /// All models.
    pub async fn models(&self) -> Result<Reply<ModelList>, ClientError> {
        self.get("/lovable/v1/models").await
    }

    /// One model. The slashes of its name are part of the path.
    pub async fn model(&self, name: &str) -> Result<Reply<ModelView>, ClientError> {
        self.get(&format!("/lovable/v1/models/{}", rest(name))).await
    }

    /// Sums over outcomes.
    pub async fn stats(&self, query: &StatsQuery) -> Result<Reply<StatsList>, ClientError> {
        self.get(&with_query("/lovable/v1/stats", &query.pairs())).await
    }

    /// Two servers or models side by side.
    pub async fn compare(
        &self,
        a: &str,
        b: &str,
        since: Option<&str>,
        until: Option<&str>,
    ) -> Result<Reply<CompareView>, ClientError> {
        let pairs = [("a", Some(a)), ("b", Some(b)), ("since", since), ("until", until)];
        self.get(&with_query("/lovable/v1/stats/compare", &pairs)).await
    }

    /// Forgets all requests and statistics.
    pub async fn clear_stats(&self) -> Result<Reply<serde_json::Value>, ClientError> {
        self.ask(Method::DELETE, "/lovable/v1/stats", None, CONTROL_PATIENCE).await
    }

    /// All requests, one line each, as `csv` or `jsonl`.
    pub async fn export(&self, format: &str, query: &StatsQuery) -> Result<Export, ClientError> {
        let mut pairs = query.pairs().to_vec();
        pairs.push(("format", Some(format)));
        let path = with_query("/lovable/v1/stats/export", &pairs);
        let request = self.request_to(Method::GET, &path, None, &[]);
        let patience = self.patience.unwrap_or(CONTROL_PATIENCE);
        Ok(Export::new(self.send(request, Some(patience)).await?.into_body()))
    }

    /// The last requests, the last one first.
    pub async fn requests(&self, limit: u32) -> Result<Reply<RequestList>, ClientError> {
        self.get(&format!("/lovable/v1/requests?limit={limit}")).await
    }

    /// How one request went.
    pub async fn request(&self, id: &str) -> Result<Reply<RequestView>, ClientError> {
        self.get(&format!("/lovable/v1/requests/{}", segment(id))).await
    }

    /// The settings in force.
    pub async fn config(&self) -> Result<Reply<ConfigView>, ClientError> {
        self.get("/lovable/v1/config").await
    }

    /// Follows what changes.
    pub async fn events(&self) -> Result<Feed<EventView>, ClientError> {
        let request = self.request_to(Method::GET, "/lovable/v1/events", None, &[]);
        let patience = self.patience.unwrap_or(CONTROL_PATIENCE);
        Ok(Feed::new(self.send(request, Some(patience)).await?.into_body()))
    }

    /// Asks for one answer, whole or as a stream, as the body says. With a
    /// patience the daemon gives up when nothing came in that time; without
    /// one, its own settings hold, and this client waits for it.
    pub async fn generate(&self, body: &GenerateBody) -> Result<Answer, ClientError> {
        let limit = self.patience.map(|it| it.as_millis().to_string());
        let headers: Vec<_> = limit.iter().map(|it| ("x-lovable-timeout-ms", it.as_str())).collect();
        let request = self.request_to(Method::POST, "/lovable/v1/generate", Some(json(body)), &headers);
        // The daemon keeps time; a second more lets its own words arrive first.
        let patience = self.patience.map(|it| it + Duration::from_secs(1));
        if body.stream {
            return Ok(Answer::streamed(self.send(request, patience).await?));
        }
        let (head, incoming) = self.send(request, patience).await?.into_parts();
        let raw = read_whole(incoming).await?;
        Ok(Answer::whole(AnsweredBy::read(&head.headers), raw))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, ClientError> {
        self.ask(Method::GET, path, None, CONTROL_PATIENCE).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, ClientError> {
        self.ask(Method::POST, path, None, CONTROL_PATIENCE).await
    }

    /// One question and its whole reply, within one patience for both.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        patience: Duration,
    ) -> Result<Reply<T>, ClientError> {
        let patience = self.patience.unwrap_or(patience);
        let request = self.request_to(method, path, body, &[]);
        let asked = async { read_whole(self.send(request, None).await?.into_body()).await };
        match tokio::time::timeout(patience, asked).await {
            Ok(raw) => Ok(Reply::new(raw?)),
            Err(_) => Err(self.silent(patience)),
        }
    }

    fn request_to(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let uri: hyper::Uri = hyperlocal::Uri::new(&self.socket, path).into();
        let mut request =
            Request::builder().method(method).uri(uri).header("host", "lovable").header("user-agent", AGENT);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        request.map_err(|error| ClientError::Unreadable(error.to_string()))
    }

    /// Sends a request; what is not a success becomes an error.
    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, ClientError>,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, ClientError> {
        let sent = async {
            let response = self.http.request(request?).await.map_err(|error| self.unsent(error))?;
            if response.status().is_success() {
                return Ok(response);
            }
            Err(refused(response).await)
        };
        match patience {
            None => sent.await,
            Some(patience) => match tokio::time::timeout(patience, sent).await {
                Ok(response) => response,
                Err(_) => Err(self.silent(patience)),
            },
        }
    }

    fn silent(&self, after: Duration) -> ClientError {
        ClientError::Silent { socket: self.socket.clone(), after }
    }

    fn unsent(&self, error: legacy::Error) -> ClientError {
        let socket = self.socket.clone();
        if !error.is_connect() {
            return ClientError::HungUp { socket, source: io::Error::other(error) };
        }
        let mut cause = std::error::Error::source(&error);
        while let Some(it) = cause {
            if let Some(it) = it.downcast_ref::<io::Error>() {
                let source = match it.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(it.kind(), it.to_string()),
                };
                return ClientError::Unreachable { socket, source };
            }
            cause = it.source();
        }
        ClientError::Unreachable { socket, source: io::Error::other(error.to_string()) }
    }
}

/// An answer with a status that is no success, in the words of the daemon.
async fn refused(response: Response<Incoming>) -> ClientError {
    let status = response.status().as_u16();
    let raw = match read_whole(response.into_body()).await {
        Ok(raw) => raw,
        Err(error) => return error,
    };
    match serde_json::from_slice::<ErrorBody>(&raw) {
        Ok(ErrorBody { error }) => ClientError::Api { status, code: error.code, message: error.message, raw },
        // A server's own refusal comes in its own shape: its message if it has one.
        Err(_) => {
            let said = serde_json::from_slice::<serde_json::Value>(&raw).ok();
            let message =
                said.as_ref().and_then(|it| it.pointer("/error/message")).and_then(|it| it.as_str());
            let message = message.map_or_else(|| format!("status {status}"), str::to_owned);
            ClientError::Api { status, code: "refused".to_owned(), message, raw }
        }
    }
}

async fn read_whole(body: Incoming) -> Result<Bytes, ClientError> {
    match http_body_util::Limited::new(body, LARGEST_REPLY).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => {
            Err(ClientError::BrokenOff { code: None, message: error.to_string(), raw: Bytes::new() })
        }
    }
}

fn json(body: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(body).expect("our own shapes have text for keys and no failing field").into()
}

/// One part of a path, or a value of a query: everything but unreserved characters is escaped.
fn segment(text: &str) -> String {
    escape(text, b"-._~")
}

/// The rest of a path: like a segment, but its slashes stay.
fn rest(text: &str) -> String {
    escape(text, b"-._~/:@")
}

fn escape(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    // A dot or two alone would be a step in the path, not a name.
    match escaped.as_str() {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => escaped,
    }
}

#[cfg(test)]
mod tests;
