//! The scene in which clients are tried: servers with a model that answers, one that makes
//! vectors, one that breaks in the middle of each answer and one that fails before each; and a
//! daemon in front of them, on its socket and on loopback TCP.

use std::net::TcpListener;

use lovable::{
    server::Endpoint,
    simulate::{Fault, Offer, Plan, Script, Shape, Simulated, text},
};
use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Options},
    real::{Real, odd_port, words},
};

/// How many words a whole answer has.
const WORDS: usize = 12;

/// The kinds of the clients' tables.
pub(super) const SHAPES: &[Shape] = &[Shape::Ollama, Shape::Vllm, Shape::LmStudio, Shape::LlamaCpp];

/// What is tried; the scripts in `tests/clients` know it by these words.
pub(super) const FEATURES: &[&str] = &[
    "text",
    "stream",
    "tools",
    "tools streamed",
    "tool results",
    "object",
    "embeddings",
    "models",
    "refused",
    "broken off",
];

/// What can be tried with a real model that does nothing but count.
pub(super) const REAL_FEATURES: &[&str] = &["text", "stream", "embeddings", "models"];

/// Everything that is running.
pub(super) struct Scene {
    pub(super) daemon: Daemon,
    pub(super) port: u16,
    kinds: Vec<Value>,
    text: String,
    /// The tokens by which answers are cut short that would not end by themselves.
    limit: Option<usize>,
    _simulated: Vec<Simulated>,
    _real: Vec<Real>,
}

impl Scene {
    /// Simulated servers of these shapes, and a daemon with these options in front of them.
    pub(super) async fn start(shapes: &[Shape], options: Options) -> Self {
        let (mut options, port) = listening(options);
        let mut servers = Vec::new();
        for shape in shapes {
            for (role, plan) in ROLES {
                let server = Simulated::start(*shape, script(*shape, role, plan.clone())).await.unwrap();
                options = options.simulated(&server, &model(shape.kind(), role), 0);
                servers.push(server);
            }
        }
        Self {
            daemon: options.start().await,
            port,
            kinds: shapes.iter().map(|shape| names(shape.kind())).collect(),
            text: text(WORDS),
            limit: None,
            _simulated: servers,
            _real: Vec::new(),
        }
    }

    /// llama.cpp's own server, and a daemon in front of it.
    pub(super) async fn real() -> Self {
        let (mut options, port) = listening(Options::alone());
        let words_each = WORDS.to_string();
        let roles = [("real-chat", vec!["--predict", &words_each]), ("real-embed", vec!["--embeddings"])];
        let mut servers = Vec::new();
        for (name, args) in roles {
            let port = odd_port().await;
            servers.push(Real::llama_with(name, port, &args).await);
            options = options.server(&Endpoint::tcp([127, 0, 0, 1].into(), port), name, 0);
        }
        Self {
            daemon: options.start().await,
            port,
            kinds: vec![names("real")],
            text: format!(" {}", words()[..WORDS].join(" ")),
            limit: Some(WORDS),
            _simulated: Vec::new(),
            _real: servers,
        }
    }

    /// The scene as a script is told of it.
    pub(super) fn told(&self, ways: &[&str], features: &[&str]) -> Value {
        json!({
            "socket": self.daemon.socket(), "address": self.address(), "text": self.text, "limit": self.limit,
            "ways": ways, "features": features, "kinds": self.kinds,
        })
    }

    /// Where it is on loopback TCP.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// What its model does in each role. They are servers of their own, since llama.cpp has one
/// model each, and a fault is a whole server's.
const ROLES: [(&str, Plan); 4] = [
    ("chat", Plan::Never),
    ("embed", Plan::Never),
    ("breaks", Plan::Always(Fault::DieMidStream)),
    ("fails", Plan::Always(Fault::ServerError)),
];

/// The name of a model.
pub(super) fn model(kind: &str, role: &str) -> String {
    format!("{kind}-{role}")
}

fn names(kind: &str) -> Value {
    let mut names = json!({"kind": kind});
    for (role, _) in ROLES {
        names[role] = json!(model(kind, role));
    }
    names
}

fn script(shape: Shape, role: &str, plan: Plan) -> Script {
    let offer = Offer { embeds: role == "embed", ..Offer::named(&model(shape.kind(), role)) };
    Script { models: vec![offer], words: WORDS, plan, ..Script::default() }
}

fn listening(options: Options) -> (Options, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (options.arg("--listen").arg(&format!("127.0.0.1:{port}")), port)
}
