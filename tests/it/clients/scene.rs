//! The scene in which clients are tried: simulated servers of every kind, each with a
//! model that answers, one that makes vectors, one that breaks in the middle and one that
//! fails at once; and a daemon in front of them, on its socket and on loopback TCP.

use std::net::TcpListener;

use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated, text};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Options};

/// How many words a whole answer has.
const WORDS: usize = 12;

/// The kinds of the clients' tables.
pub(super) const SHAPES: &[Shape] = &[Shape::Ollama, Shape::Vllm, Shape::LmStudio, Shape::LlamaCpp];

/// What may be tried; the scripts in `tests/clients` know them by these words.
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

/// Everything that is running.
pub(super) struct Scene {
    pub(super) daemon: Daemon,
    pub(super) port: u16,
    shapes: Vec<Shape>,
    _servers: Vec<Simulated>,
}

impl Scene {
    /// Servers of these shapes, and a daemon with these options in front of them.
    pub(super) async fn start(shapes: &[Shape], options: Options) -> Self {
        let port = free_port();
        let mut options = options.arg("--listen").arg(&format!("127.0.0.1:{port}"));
        let mut servers = Vec::new();
        for shape in shapes {
            for (role, script) in scripts(*shape) {
                let server = Simulated::start(*shape, script).await.unwrap();
                options = options.simulated(&server, &format!("{}-{role}", shape.kind()), 0);
                servers.push(server);
            }
        }
        Self { daemon: options.start().await, port, shapes: shapes.to_vec(), _servers: servers }
    }

    /// The scene as a script is told of it.
    pub(super) fn told(&self, ways: &[&str], features: &[&str]) -> Value {
        let kinds = self.shapes.iter().map(|shape| {
            let mut names = json!({"kind": shape.kind()});
            for role in ["chat", "embed", "breaks", "fails"] {
                names[role] = json!(model(*shape, role));
            }
            names
        });
        json!({
            "socket": self.daemon.socket(), "address": self.address(), "text": text(WORDS), "ways": ways,
            "features": features, "kinds": kinds.collect::<Vec<_>>(),
        })
    }

    /// Where it is on loopback TCP.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The name of a model.
pub(super) fn model(shape: Shape, role: &str) -> String {
    format!("{}-{role}", shape.kind())
}

/// The servers of one kind. llama.cpp has one model each and answers to any name, so there the
/// maker of vectors is a server of its own.
fn scripts(shape: Shape) -> Vec<(&'static str, Script)> {
    let offer = |role| Offer { embeds: role == "embed", ..Offer::named(&model(shape, role)) };
    let script = |roles: &[&'static str], plan| Script {
        models: roles.iter().map(|role| offer(role)).collect(),
        words: WORDS,
        plan,
        ..Script::default()
    };
    vec![
        ("chat", script(&["chat"], Plan::Never)),
        ("embed", script(&["embed"], Plan::Never)),
        ("breaks", script(&["breaks"], Plan::Always(Fault::DieMidStream))),
        ("fails", script(&["fails"], Plan::Always(Fault::ServerError))),
    ]
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
