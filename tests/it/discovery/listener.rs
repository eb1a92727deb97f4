//! A listener that does as it is told and notes what it is asked by one daemon.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::daemon::Daemon;

/// What is done with a request.
pub(super) enum Deed {
    Say(String),
    /// Says this, and then nothing, without an end.
    Hang(String),
    /// Says this, and then the second for ever.
    Pour(String, String),
    Reset,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) text: String,
}

impl Heard {
    /// `GET /v1/models`
    pub(super) fn line(&self) -> &str {
        self.text.split(" HTTP/").next().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.text.lines().skip(1).filter_map(|it| it.split_once(": "));
        headers.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Dropping it closes it.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicUsize>,
    /// Whose requests are noted; everybody's while it is 0.
    of: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    /// On any free port.
    pub(super) fn start(act: impl Fn(&str) -> Deed + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), act)
    }

    pub(super) fn on(listener: TcpListener, act: impl Fn(&str) -> Deed + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let connections = Arc::<AtomicUsize>::default();
        let of = Arc::<AtomicU32>::default();
        let act = Arc::new(act);
        let (noted, counted, whose) = (heard.clone(), connections.clone(), of.clone());
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                let (heard, act, whose) = (noted.clone(), act.clone(), whose.clone());
                serving.spawn(async move {
                    let note = is_of(whose.load(Relaxed), peer, address).await;
                    serve(stream, note, &heard, |line| act(line)).await;
                });
            }
        });
        Self { address, heard, connections, of, task }
    }

    /// Notes from now on only what this daemon asks: others look around here too.
    pub(super) fn of(self, daemon: &Daemon) -> Self {
        self.of.store(daemon.pid(), Relaxed);
        self
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn asked(&self, line: &str) -> usize {
        self.heard().iter().filter(|it| it.line() == line).count()
    }

    /// How many connections there were, of whomever.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Waits until so many requests came.
    pub(super) async fn until_heard(&self, count: usize) -> Vec<Heard> {
        let start = Instant::now();
        loop {
            let heard = self.heard();
            if heard.len() >= count {
                return heard;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{} heard only {heard:?}", self.url());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, note: bool, heard: &Mutex<Vec<Heard>>, act: impl Fn(&str) -> Deed) {
    let at = Instant::now();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&text) {
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    let request = Heard { at, text: String::from_utf8_lossy(&text).into_owned() };
    let deed = act(request.line());
    if note && !text.is_empty() {
        heard.lock().unwrap().push(request);
    }
    match deed {
        Deed::Say(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Deed::Hang(begin) => {
            let _ = stream.write_all(begin.as_bytes()).await;
            // Ends when the other side has had enough.
            while let Ok(1..) = stream.read(&mut buffer).await {}
        }
        Deed::Pour(begin, more) => {
            let _ = stream.write_all(begin.as_bytes()).await;
            while stream.write_all(more.as_bytes()).await.is_ok() {}
        }
        Deed::Reset => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().filter_map(|it| it.split_once(": "));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map(|(_, value)| value.parse().unwrap()).next().unwrap_or(0);
    body.len() >= length
}

/// Whether the other end of a connection is a socket of this process.
async fn is_of(pid: u32, peer: SocketAddr, own: SocketAddr) -> bool {
    // The table is shown in pieces while it changes, so a row can be missed.
    for _ in 0..5 {
        match inode(peer.port(), own.port()) {
            _ if pid == 0 => return true,
            Some(inode) => {
                let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
                let mut targets = descriptors.flatten().filter_map(|it| fs::read_link(it.path()).ok());
                return targets.any(|it| it.to_str() == Some(&inode));
            }
            None => sleep(Duration::from_millis(2)).await,
        }
    }
    false
}

/// The socket of a connection from one port of this machine to another, as `/proc` names it.
fn inode(from: u16, to: u16) -> Option<String> {
    let port = |it: &str| it.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let ends = (port(fields.get(1)?)?, port(fields.get(2)?)?);
            (ends == (from, to) && fields[9] != "0").then(|| format!("socket:[{}]", fields[9]))
        })
    })
}

pub(super) fn http(status: u16, content_type: &str, body: &str) -> Deed {
    http_with(status, &format!("content-type: {content_type}\r\n"), body)
}

pub(super) fn http_with(status: u16, headers: &str, body: &str) -> Deed {
    let length = body.len();
    Deed::Say(format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

pub(super) fn json_of(status: u16, body: &Value) -> Deed {
    http(status, "application/json", &body.to_string())
}

/// Something that lists this model the OpenAI way, and answers for it.
pub(super) fn openai(model: &str) -> impl Fn(&str) -> Deed + Send + Sync + 'static {
    let model = model.to_owned();
    move |line| match line {
        "GET /v1/models" => {
            json_of(200, &json!({"object": "list", "data": [{"id": model, "object": "model"}]}))
        }
        // Plain requests are asked for as streams too.
        "POST /v1/chat/completions" => {
            let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": "w1"}, "finish_reason": "stop"}
            ]});
            http(200, "text/event-stream", &format!("data: {chunk}\n\ndata: [DONE]\n\n"))
        }
        _ => json_of(404, &json!({"error": {"message": "no such route"}})),
    }
}

/// A llama.cpp server with this file, and what else it lists.
pub(super) fn llama(file: &str, entry: Value) -> impl Fn(&str) -> Deed + Send + Sync + 'static {
    let props = json!({"build_info": "b1-test", "total_slots": 1, "model_path": file});
    move |line| {
        let (status, body) = match line {
            "GET /v1/models" => (200, json!({"object": "list", "data": [entry]})),
            "GET /props" => (200, props.clone()),
            _ => {
                (404, json!({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}))
            }
        };
        http_with(status, "server: llama.cpp\r\ncontent-type: application/json\r\n", &body.to_string())
    }
}
