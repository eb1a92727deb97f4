//! A provider as its documents say that it is: TLS, one list of models, one door, keys, token
//! counts, and a bill. What it bills it bills when a request arrives, whatever becomes of it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    server::TlsStream,
};

use crate::privacy::quiet;

/// What a token costs, in billionths of a dollar: that of a prompt, that of an answer.
pub(crate) const PRICE: (u64, u64) = (1_000, 4_000);

/// The same as the configuration says it.
pub(crate) const PRICE_SET: &str = "{ input = 1.0, output = 4.0 }";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) start: String,
    /// Its head in small letters.
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let line = self.head.lines().find_map(|it| it.strip_prefix(&format!("{name}: ")))?;
        Some(line.to_owned())
    }
}

/// What it does with requests.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// The key that it takes, as its header has it.
    pub(crate) key: (&'static str, String),
    /// Its models, by their ids.
    pub(crate) models: Vec<&'static str>,
    /// What it says instead of an answer.
    pub(crate) refuses: Option<(u16, Value)>,
    /// Whether it hangs up in the middle of an answer.
    pub(crate) dies: bool,
    /// How long each word takes.
    pub(crate) between: Duration,
    /// How many words it says, if it may.
    pub(crate) words: u64,
}

#[derive(Default)]
struct Books {
    seen: Vec<Seen>,
    billed: u64,
    connections: u64,
}

/// A provider.
pub(crate) struct Sold {
    pub(crate) kind: &'static str,
    port: u16,
    ca: PathBuf,
    _directory: tempfile::TempDir,
    manner: Arc<Mutex<Manner>>,
    books: Arc<Mutex<Books>>,
    task: JoinHandle<()>,
}

impl Drop for Sold {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sold {
    /// One of this kind that takes the key `sk-KIND`, where no lovable looks by itself.
    pub(crate) async fn start(kind: &'static str, models: &[&'static str]) -> Self {
        Self::start_on(quiet().await, kind, models)
    }

    /// The same on any port.
    pub(crate) async fn start_anywhere(kind: &'static str, models: &[&'static str]) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), kind, models)
    }

    fn start_on(listener: TcpListener, kind: &'static str, models: &[&'static str]) -> Self {
        let made =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let port = listener.local_addr().unwrap().port();
        let key = match kind {
            "anthropic" => ("x-api-key", "sk-anthropic".to_owned()),
            _ => ("authorization", format!("bearer sk-{kind}")),
        };
        let manner = Manner {
            key,
            models: models.to_vec(),
            refuses: None,
            dies: false,
            between: Duration::ZERO,
            words: 5,
        };
        let (manner, books) = (Arc::new(Mutex::new(manner)), Arc::<Mutex<Books>>::default());
        let task = tokio::spawn({
            let (manner, books) = (manner.clone(), books.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    books.lock().unwrap().connections += 1;
                    let (acceptor, manner, books) = (acceptor.clone(), manner.clone(), books.clone());
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let _ = Conversation { kind, stream, manner, books }.run().await;
                        }
                    });
                }
            }
        });
        Self { kind, port, ca, _directory: directory, manner, books, task }
    }

    /// Its entry in the configuration. The path is the one that its documents have.
    pub(crate) fn entry(&self, more: &str) -> String {
        let path = match self.kind {
            "gemini" => "/v1beta/openai/",
            "groq" => "/openai/v1",
            "openrouter" => "/api/v1",
            _ => "",
        };
        let (kind, port, ca) = (self.kind, self.port, self.ca.display());
        format!(
            "[[servers]]\nurl = \"https://127.0.0.1:{port}{path}\"\nkind = \"{kind}\"\ntls = {{ ca = \"{ca}\" }}\n{more}\n"
        )
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    /// The requests for an answer that came.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        let books = self.books.lock().unwrap();
        books.seen.iter().filter(|it| it.start.starts_with("POST")).cloned().collect()
    }

    /// Everything that came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.books.lock().unwrap().seen.clone()
    }

    /// How often somebody connected, for whatever reason.
    pub(crate) fn connections(&self) -> u64 {
        self.books.lock().unwrap().connections
    }

    /// The bill, in billionths of a dollar.
    pub(crate) fn billed(&self) -> u64 {
        self.books.lock().unwrap().billed
    }
}

struct Conversation {
    kind: &'static str,
    stream: TlsStream<TcpStream>,
    manner: Arc<Mutex<Manner>>,
    books: Arc<Mutex<Books>>,
}

impl Conversation {
    async fn run(mut self) -> std::io::Result<()> {
        let mut got = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = memchr::memmem::find(&got, b"\r\n\r\n") {
                    break at + 4;
                }
                if self.stream.read_buf(&mut got).await? == 0 {
                    return Ok(());
                }
            };
            let head = String::from_utf8_lossy(&got[..end]).into_owned();
            let start = head.lines().next().unwrap_or_default().to_owned();
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|it| it.split("\r\n").next());
            let length: usize = length.map_or(0, |it| it.parse().unwrap());
            while got.len() < end + length {
                if self.stream.read_buf(&mut got).await? == 0 {
                    return Ok(());
                }
            }
            let body = serde_json::from_slice(&got[end..end + length]).unwrap_or_default();
            let size = length as u64;
            got.drain(..end + length);
            let seen = Seen { start, head, body };
            self.books.lock().unwrap().seen.push(seen.clone());
            self.answer(&seen, size).await?;
        }
    }

    async fn answer(&mut self, seen: &Seen, size: u64) -> std::io::Result<()> {
        let manner = self.manner.lock().unwrap().clone();
        let (name, key) = &manner.key;
        if seen.header(name).as_deref() != Some(key) {
            let error =
                json!({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}});
            return self.say(401, &error).await;
        }
        if seen.start.starts_with("GET") {
            let data: Vec<Value> = manner.models.iter().map(|id| listed(self.kind, id)).collect();
            return self.say(200, &json!({"object": "list", "data": data})).await;
        }
        if let Some((status, body)) = &manner.refuses {
            return self.say(*status, body).await;
        }
        let limit = ["max_tokens", "max_completion_tokens"].iter().find_map(|it| seen.body[*it].as_u64());
        let (prompt, answer) = (size / 4, manner.words.min(limit.unwrap_or(u64::MAX)));
        self.books.lock().unwrap().billed += prompt * PRICE.0 + answer * PRICE.1;
        let model = seen.body["model"].as_str().unwrap_or_default();
        let streams = seen.body["stream"] == true;
        let pieces = match (self.kind, streams) {
            ("anthropic", true) => anthropic(model, prompt, answer),
            (_, true) => openai(self.kind, model, prompt, answer, seen.body["tools"].is_array()),
            ("anthropic", false) => return self.say(200, &anthropic_whole(model, prompt, answer)).await,
            (_, false) => return self.say(200, &openai_whole(model, prompt, answer)).await,
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        let half = pieces.len() / 2;
        for (at, piece) in pieces.iter().enumerate() {
            if manner.dies && at == half {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            tokio::time::sleep(manner.between).await;
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            self.stream.write_all(chunk.as_bytes()).await?;
            self.stream.flush().await?;
        }
        self.stream.write_all(b"0\r\n\r\n").await?;
        self.stream.flush().await
    }

    async fn say(&mut self, status: u16, body: &Value) -> std::io::Result<()> {
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(answer.as_bytes()).await?;
        self.stream.flush().await
    }
}

fn listed(kind: &str, id: &str) -> Value {
    match kind {
        "gemini" => json!({"id": format!("models/{id}"), "object": "model", "owned_by": "google"}),
        "anthropic" => {
            json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
        }
        "groq" => {
            json!({"id": id, "object": "model", "owned_by": "x", "active": true, "context_window": 131_072})
        }
        "openrouter" => json!({"id": id, "context_length": 131_072, "supported_parameters": ["tools"],
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]}}),
        _ => json!({"id": id, "object": "model", "created": 1, "owned_by": "system"}),
    }
}

fn word(number: u64) -> String {
    if number == 1 { "w1".to_owned() } else { format!(" w{number}") }
}

fn openai(kind: &str, model: &str, prompt: u64, answer: u64, calls: bool) -> Vec<String> {
    let chunk = |delta: Value, reason: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
        json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]})
    };
    let mut all = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    if calls {
        // Gemini's calls have no numbers, and come whole.
        let call =
            |name: &str| json!({"id": "", "type": "function", "function": {"name": name, "arguments": "{}"}});
        all.push(chunk(json!({"tool_calls": [call("one")]}), Value::Null));
        all.push(chunk(json!({"tool_calls": [call("two")]}), Value::Null));
    }
    all.extend((1..=answer).map(|it| chunk(json!({"content": word(it)}), Value::Null)));
    all.push(chunk(json!({}), if calls { "tool_calls" } else { "stop" }.into()));
    // Gemini leaves its thoughts out of the one number and not out of the other.
    let (said, thought) = if kind == "gemini" { (answer - 1, 1) } else { (answer, 0) };
    let usage =
        json!({"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said + thought});
    all.push(
        json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [],
        "usage": usage}),
    );
    let mut pieces: Vec<String> = all.iter().map(|it| format!("data: {it}\n\n")).collect();
    if kind == "openrouter" {
        pieces.insert(0, ": OPENROUTER PROCESSING\n\n".to_owned());
    }
    pieces.push("data: [DONE]\n\n".to_owned());
    pieces
}

fn openai_whole(model: &str, prompt: u64, answer: u64) -> Value {
    let text: String = (1..=answer).map(word).collect();
    json!({"id": "c1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}})
}

fn anthropic(model: &str, prompt: u64, answer: u64) -> Vec<String> {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": prompt, "output_tokens": 1}});
    let mut all = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    all.extend((1..=answer).map(|it| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word(it)}})
    }));
    all.push(json!({"type": "content_block_stop", "index": 0}));
    all.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
        "usage": {"output_tokens": answer}}));
    all.push(json!({"type": "message_stop"}));
    all.iter().map(|it| format!("event: {}\ndata: {it}\n\n", it["type"].as_str().unwrap())).collect()
}

fn anthropic_whole(model: &str, prompt: u64, answer: u64) -> Value {
    let text: String = (1..=answer).map(word).collect();
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": prompt, "output_tokens": answer}})
}
