//! A simulated model server: the HTTP of a real kind, words that are numbered,
//! and faults on demand. Tests, benchmarks and `--demo` stand on it.
//!
//! It speaks its own small HTTP/1.1 on the bare socket, because half of what a
//! broken server does (a reset, a torn frame, a wrong length) cannot be said
//! through an HTTP library. Of our rooms it knows only the words, so that what
//! it says is a second opinion about the wire and not an echo of our own
//! parsers. It identifies itself in every answer: `x-lovable-simulated: 1`.
//!
//! It speaks the languages that its kind speaks, at the same paths. An answer is the
//! words `w1 w2 w3 …`, so that a lost, doubled or swapped piece shows ([`check`] finds
//! it); the demo says a sentence instead. What else a request can ask for is answered so
//! that it can be checked as well: a tool whose name the last turn mentions is called (all
//! that are mentioned, at once), JSON and arguments fit their schema, thoughts are `t1 t2`,
//! an image's size is told, log probabilities fall by an eighth. No prompt is kept.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
//!
//! let server = Simulated::start(Shape::Vllm, Script { words: 20, ..Script::default() }).await?;
//! println!("{}", server.endpoint());
//! server.change(|script| script.plan = Plan::Always(Fault::DieMidFrame));
//! assert_eq!(server.counts().received, 0);
//! server.stop().await;
//! # Ok(()) }
//! ```

mod answer;
mod ask;
mod begun;
mod fit;
mod http;
mod listing;
mod messages;
mod ollama;
mod openai;
mod picture;
mod pieces;
mod responses;
mod script;
mod serve;
mod shape;
#[cfg(test)]
mod shapes;
mod strike;
mod turn;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::server::Endpoint;

use self::{
    http::Stream,
    serve::{Counters, Server},
};
pub use self::{
    pieces::{check, text, word},
    script::{Fault, Offer, Plan, Script, Strikes},
    serve::Counts,
    shape::Shape,
};

/// Where a simulated server listens.
#[derive(Clone, Debug)]
pub enum At {
    /// A loopback port; 0 is any free one.
    Port(u16),
    /// An address and port of a machine that others can reach.
    Address(SocketAddr),
    /// A Unix socket, which must not exist yet.
    Unix(PathBuf),
}

/// Three servers for people who have none: shaped like Ollama, vLLM and LM Studio.
pub async fn demo() -> io::Result<Vec<Simulated>> {
    let said = "This answer is simulated: no model is running. Start a real model server on this machine, on any \
                port, and lovable finds it within a second.";
    let script = |models: Vec<Offer>| Script {
        models,
        sentence: Some(said.to_owned()),
        before: std::time::Duration::from_millis(120),
        between: std::time::Duration::from_millis(30),
        ..Script::default()
    };
    let small =
        || Offer { family: "qwen3".into(), parameters: "8.2B".into(), ..Offer::named("demo-small:8b") };
    let large = || Offer { family: "qwen3".into(), parameters: "32.8B".into(), ..Offer::named("demo-large") };
    let embedder = || Offer { embeds: true, ..Offer::named("demo-embed") };
    Ok(vec![
        Simulated::start(Shape::Ollama, script(vec![small(), embedder()])).await?,
        Simulated::start(Shape::Vllm, script(vec![large()])).await?,
        Simulated::start(Shape::LmStudio, script(vec![small(), large()])).await?,
    ])
}

/// A running simulated server. Dropping it kills it.
#[derive(Debug)]
pub struct Simulated {
    shape: Shape,
    at: Bound,
    state: watch::Sender<State>,
    listening: watch::Receiver<bool>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
enum Bound {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What the tasks of one server are told.
#[derive(Clone, Debug)]
struct State {
    script: Arc<Script>,
    alive: bool,
}

impl State {
    /// Whether there is a listener: not when killed, nor when every connection is to be refused.
    fn listens(&self) -> bool {
        self.alive && !matches!(self.script.plan, Plan::Always(Fault::Refuse))
    }
}

impl Simulated {
    /// Starts a server on a free loopback port.
    pub async fn start(shape: Shape, script: Script) -> io::Result<Self> {
        Self::start_at(shape, script, At::Port(0)).await
    }

    /// Starts a server where it is wanted.
    pub async fn start_at(shape: Shape, script: Script, at: At) -> io::Result<Self> {
        let at = match at {
            At::Port(port) => Bound::Tcp(SocketAddr::from(([127, 0, 0, 1], port))),
            At::Address(address) => Bound::Tcp(address),
            At::Unix(path) => Bound::Unix(path),
        };
        let listener = Listener::bind(&at).await?;
        let at = listener.bound(at)?;
        let state = State { script: Arc::new(script), alive: true };
        let first = state.listens().then_some(listener);
        let (state, receiver) = watch::channel(state);
        let (says, listening) = watch::channel(first.is_some());
        let counters = Arc::<Counters>::default();
        let server = Arc::new(Server::new(shape, receiver.clone(), counters.clone()));
        let task = tokio::spawn(accept(first, at.clone(), server, receiver, says));
        Ok(Self { shape, at, state, listening, counters, task })
    }

    /// Where it is.
    pub fn endpoint(&self) -> Endpoint {
        match &self.at {
            Bound::Tcp(address) => Endpoint::tcp(address.ip(), address.port()),
            Bound::Unix(path) => Endpoint::parse(&format!("unix:{}", path.display()))
                .expect("it was bound, so it is a full path"),
        }
    }

    /// Its port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match &self.at {
            Bound::Tcp(address) => address.port(),
            Bound::Unix(_) => 0,
        }
    }

    /// What kind of server it looks like.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The script in force.
    pub fn script(&self) -> Arc<Script> {
        self.state.borrow().script.clone()
    }

    /// Changes the script; requests that have begun keep the old one.
    pub fn change(&self, edit: impl FnOnce(&mut Script)) {
        self.state.send_modify(|state| edit(Arc::make_mut(&mut state.script)));
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Dies as under SIGKILL: the listener and every connection are closed at once.
    pub async fn kill(&self) {
        self.state.send_modify(|state| state.alive = false);
        self.until_listening(false).await;
    }

    /// Comes back on the same address.
    pub async fn revive(&self) {
        self.state.send_modify(|state| state.alive = true);
        self.until_listening(true).await;
    }

    /// Returns once the listener is there, or is gone (after a change of the script).
    pub async fn until_listening(&self, wanted: bool) {
        // An error means that the task is over, and the listener with it.
        let _ = self.listening.clone().wait_for(|is| *is == wanted).await;
    }

    /// Stops for good.
    pub async fn stop(self) {
        self.kill().await;
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        self.task.abort();
        if let Bound::Unix(path) = &self.at {
            let _ = std::fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn bind(at: &Bound) -> io::Result<Self> {
        Ok(match at {
            Bound::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
            Bound::Unix(path) => Self::Unix(UnixListener::bind(path)?),
        })
    }

    fn bound(&self, at: Bound) -> io::Result<Bound> {
        match self {
            Self::Tcp(listener) => Ok(Bound::Tcp(listener.local_addr()?)),
            Self::Unix(_) => Ok(at),
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Takes connections while the state says so. The connections are this task's
/// children: they die with it, and when the server is killed.
async fn accept(
    mut listener: Option<Listener>,
    at: Bound,
    server: Arc<Server>,
    mut state: watch::Receiver<State>,
    says: watch::Sender<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (listens, alive) = {
            let now = state.borrow_and_update();
            (now.listens(), now.alive)
        };
        if !alive {
            connections.shutdown().await;
        }
        if !listens && listener.take().is_some() {
            if let Bound::Unix(path) = &at {
                let _ = std::fs::remove_file(path);
            }
        } else if listens && listener.is_none() {
            // Somebody else may hold the port for a moment: try until the state changes.
            listener = Listener::bind(&at).await.ok();
            if listener.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        }
        says.send_replace(listener.is_some());
        loop {
            tokio::select! {
                biased;
                changed = state.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(_) = connections.join_next() => {}
                Some(Ok(stream)) = next(listener.as_ref()) => {
                    let server = server.clone();
                    connections.spawn(async move { server.connection(stream).await });
                }
            }
        }
    }
}

async fn next(listener: Option<&Listener>) -> Option<io::Result<Stream>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    fn builder() -> reqwest::ClientBuilder {
        // An error means that another test has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
    }

    fn client() -> reqwest::Client {
        builder().build().unwrap()
    }

    fn question(stream: bool) -> Value {
        json!({"model": "sim", "stream": stream, "messages": [{"role": "user", "content": "a secret"}]})
    }

    async fn ask(server: &Simulated, stream: bool) -> Result<(u16, String), reqwest::Error> {
        let url = server.endpoint().url("/v1/chat/completions");
        let body = question(stream).to_string();
        let sent = client().post(url).timeout(Duration::from_millis(300)).body(body).send().await?;
        let status = sent.status().as_u16();
        Ok((status, String::from_utf8_lossy(&sent.bytes().await?).into_owned()))
    }

    /// The words of a whole answer; an error says why it is none.
    fn words(stream: bool, body: &str) -> Result<usize, String> {
        let documents: Vec<Value> = if stream {
            let events =
                body.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").ok_or("no event"));
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let (done, events) = events.split_last().ok_or("nothing")?;
            (*done == "[DONE]").then_some(()).ok_or("no [DONE]")?;
            let parsed = events.iter().map(|event| serde_json::from_str(event));
            parsed.collect::<Result<_, _>>().map_err(|error: serde_json::Error| error.to_string())?
        } else {
            vec![serde_json::from_str(body).map_err(|error| error.to_string())?]
        };
        if !documents.iter().any(|it| it["choices"][0]["finish_reason"].is_string()) {
            return Err("no finish reason".to_owned());
        }
        let said: String = documents
            .iter()
            .flat_map(|it| [&it["choices"][0]["delta"]["content"], &it["choices"][0]["message"]["content"]])
            .filter_map(Value::as_str)
            .collect();
        check(&said)
    }

    #[tokio::test]
    async fn every_shape_answers_whole_streamed_and_plain() {
        for shape in Shape::ALL.iter().copied() {
            let server = Simulated::start(shape, Script { words: 7, ..Script::default() }).await.unwrap();
            for stream in [true, false] {
                let (status, body) = ask(&server, stream).await.unwrap();
                assert_eq!((status, words(stream, &body)), (200, Ok(7)), "{shape:?} {body}");
            }
            let counts = server.counts();
            assert_eq!((counts.received, counts.served, counts.in_flight), (2, 2, 0), "{shape:?}");
        }
    }

    #[tokio::test]
    async fn every_fault_spoils_the_answer_before_or_after_some_words() {
        let faults = Fault::ALL.iter().copied().filter(|fault| fault.strikes() != Strikes::Never);
        let cases =
            faults.flat_map(|fault| [Shape::Vllm, Shape::Ollama, Shape::LlamaCpp].map(|it| (fault, it)));
        let checks = cases.flat_map(|(fault, shape)| [0, 3].map(|after| spoils(fault, shape, after)));
        futures_util::future::join_all(checks).await;
    }

    async fn spoils(fault: Fault, shape: Shape, after: usize) {
        let script = Script { plan: Plan::Always(fault), after, ..Script::default() };
        let server = Simulated::start(shape, script).await.unwrap();
        for stream in [true, false] {
            let got = match ask(&server, stream).await {
                Ok((200, body)) => words(stream, &body),
                Ok((status, _)) => Err(format!("status {status}")),
                Err(error) => Err(error.to_string()),
            };
            assert!(got.is_err(), "{fault} {shape:?} stream {stream} after {after}: {got:?}");
        }
        assert_eq!(server.counts().served, 0, "{fault}");
    }

    #[tokio::test]
    async fn no_fault_leaves_a_whole_answer_in_any_language() {
        let faults = Fault::ALL.iter().copied().filter(|fault| fault.strikes() != Strikes::Never);
        let paths = [
            ("/api/chat", Shape::Ollama),
            ("/api/generate", Shape::Ollama),
            ("/v1/messages", Shape::LlamaCpp),
            ("/v1/responses", Shape::Vllm),
        ];
        let cases = faults.flat_map(|fault| paths.map(|(path, shape)| spoils_in(fault, path, shape)));
        futures_util::future::join_all(cases).await;
    }

    async fn spoils_in(fault: Fault, path: &'static str, shape: Shape) {
        let script = Script { plan: Plan::Always(fault), ..Script::default() };
        let server = Simulated::start(shape, script).await.unwrap();
        for stream in [true, false] {
            let mut body = question(stream);
            body["prompt"] = "a secret".into();
            body["input"] = "a secret".into();
            body["max_tokens"] = 100.into();
            let sent = client()
                .post(server.endpoint().url(path))
                .timeout(Duration::from_millis(300))
                .body(body.to_string())
                .send();
            let Ok(answer) = sent.await else { continue };
            let status = answer.status();
            let Ok(body) = answer.bytes().await else { continue };
            // Half a character is no text, and so no answer.
            let Ok(body) = String::from_utf8(body.to_vec()) else { continue };
            let ends = [
                "\"done_reason\":\"stop\"",
                "\"stop_reason\":\"end_turn\"",
                "event: response.completed",
                "\"status\":\"completed\",\"error\":null",
            ];
            let whole = serde_json::from_str::<Value>(&body).is_ok() || body.contains("\n\n");
            let ended = status == 200 && whole && ends.iter().any(|it| body.contains(it));
            assert!(!ended, "{fault} {path} stream {stream}: {body}");
        }
        assert_eq!(server.counts().served, 0, "{fault} {path}");
    }

    #[tokio::test]
    async fn an_answer_that_comes_byte_by_byte_is_right() {
        let script = Script {
            plan: Plan::Always(Fault::SlowBytes),
            words: 2,
            slow: Duration::from_micros(1),
            ..Script::default()
        };
        let server = Simulated::start(Shape::OpenAi, script).await.unwrap();
        let url = server.endpoint().url("/v1/chat/completions");
        let answer = client().post(url).body(question(true).to_string()).send().await.unwrap();
        assert_eq!(words(true, &answer.text().await.unwrap()), Ok(2));
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_and_its_slot_is_free_again() {
        let script = Script { words: 1000, between: Duration::from_millis(5), slots: 1, ..Script::default() };
        let server = Simulated::start(Shape::Vllm, script).await.unwrap();
        for stream in [true, false] {
            assert!(ask(&server, stream).await.is_err(), "300 ms are not enough for it");
        }
        while server.counts().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(server.counts().cancelled, 2);
        server.change(|script| script.words = 2);
        assert_eq!(words(true, &ask(&server, true).await.unwrap().1), Ok(2));
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_where_it_was() {
        let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        let before = server.endpoint();
        server.kill().await;
        assert!(ask(&server, false).await.unwrap_err().is_connect());
        server.revive().await;
        assert_eq!(server.endpoint(), before);
        assert_eq!(ask(&server, false).await.unwrap().0, 200);
        server.change(|script| script.plan = Plan::Always(Fault::Refuse));
        server.until_listening(false).await;
        assert!(ask(&server, false).await.unwrap_err().is_connect());
    }

    #[tokio::test]
    async fn every_answer_says_that_it_is_simulated() {
        for shape in Shape::ALL.iter().copied() {
            let server = Simulated::start(shape, Script::default()).await.unwrap();
            for path in ["/", "/v1/models", "/api/version", "/api/tags", "/version", "/props", "/nowhere"] {
                let answer = client().get(server.endpoint().url(path)).send().await.unwrap();
                assert_eq!(answer.headers()["x-lovable-simulated"], "1", "{shape:?} {path}");
            }
            // A lovable on this machine may have asked as well.
            assert!(server.counts().probes >= 7);
        }
    }

    #[tokio::test]
    async fn lm_studio_says_200_to_what_it_does_not_know() {
        let server = Simulated::start(Shape::LmStudio, Script::default()).await.unwrap();
        let answer = client().get(server.endpoint().url("/api/tags")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.text().await.unwrap(),
            r#"{"error":"Unexpected endpoint or method. (GET /api/tags)"}"#
        );
    }

    #[tokio::test]
    async fn a_unix_socket_serves_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let server =
            Simulated::start_at(Shape::Vllm, Script::default(), At::Unix(path.clone())).await.unwrap();
        let client = builder().unix_socket(path).build().unwrap();
        let answer = client.get(server.endpoint().url("/version")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), r#"{"version":"0.32.0"}"#);
    }
}
