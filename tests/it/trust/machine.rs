//! Another machine: a network namespace at the end of a cable, with a server on it that notes
//! what it hears, and may speak TLS with a key of its own.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

/// Set in the process that runs in a network of its own: which test it is.
pub(super) const INSIDE: &str = "LOVABLE_TEST_TRUST";
/// Set in the process that is the server on the other machine: where it works.
const REMOTE: &str = "LOVABLE_TEST_REMOTE";
pub(super) const HERE: &str = "10.77.0.1";
pub(super) const THERE: &str = "10.77.0.2";
/// Of documentation, so surely not near.
pub(super) const FAR: &str = "203.0.113.5";
pub(super) const PORT: u16 = 8000;

/// Another machine, with a server on it that notes what it hears.
pub(super) struct Machine {
    pub(super) directory: tempfile::TempDir,
    holder: Child,
    _server: Child,
}

impl Machine {
    /// Makes it, at the other end of a cable to this network.
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        run("ip", &["link", "set", "lo", "up"]).await;
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "600"]).stdin(Stdio::null()).kill_on_drop(true);
        let holder = command.spawn().unwrap();
        let pid = holder.id().unwrap();
        until_elsewhere(pid).await;
        let pid = pid.to_string();
        run("ip", &["link", "add", "here", "type", "veth", "peer", "name", "there"]).await;
        run("ip", &["link", "set", "there", "netns", &pid]).await;
        run("ip", &["addr", "add", &format!("{HERE}/24"), "dev", "here"]).await;
        run("ip", &["link", "set", "here", "up"]).await;
        run("ip", &["route", "add", FAR, "via", THERE, "dev", "here", "onlink"]).await;
        let inside = async |args: &[&str]| {
            run("nsenter", &[&["-t", &pid, "-n", "ip"][..], args].concat()).await;
        };
        inside(&["link", "set", "lo", "up"]).await;
        inside(&["addr", "add", &format!("{THERE}/24"), "dev", "there"]).await;
        inside(&["link", "set", "there", "up"]).await;
        // Where a name may lead later.
        inside(&["addr", "add", &format!("{FAR}/32"), "dev", "lo"]).await;

        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-n"]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "trust::machine::remote", "--nocapture"]).env_remove(INSIDE);
        command.env(REMOTE, directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let server = command.kill_on_drop(true).spawn().unwrap();
        let machine = Self { directory, holder, _server: server };
        machine.becomes("openai");
        for _ in 0..1000 {
            if log(machine.directory.path()).exists() {
                return machine;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the other machine does not serve");
    }

    pub(super) fn heard(&self) -> Vec<String> {
        heard(self.directory.path())
    }

    pub(super) fn posts(&self) -> usize {
        posts(self.directory.path())
    }

    pub(super) fn becomes(&self, kind: &str) {
        becomes(self.directory.path(), kind);
    }

    /// Runs a program there, and says what it said.
    pub(super) async fn run(&self, program: &str, args: &[&str]) -> String {
        let pid = self.holder.id().unwrap().to_string();
        run("nsenter", &[&["-t", &pid, "-n", program][..], args].concat()).await
    }
}

pub(super) async fn run(program: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    let output = command.args(args).env("PATH", path).stdin(Stdio::null()).output().await;
    text(args, &output.unwrap_or_else(|error| panic!("{program}: {error}")))
}

/// Waits until a process has a network of its own.
async fn until_elsewhere(pid: u32) {
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    for _ in 0..1000 {
        let theirs = network(&pid.to_string());
        if theirs.is_some() && theirs != network("self") {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("process {pid} has no network of its own");
}

/// The server on the other machine.
#[test]
fn remote() {
    let Some(directory) = std::env::var_os(REMOTE).map(PathBuf::from) else {
        return;
    };
    serve(TcpListener::bind(("0.0.0.0", PORT)).unwrap(), &directory);
}

/// Serves for ever as what the file `kind` says, and notes what it hears.
pub(super) fn serve(listener: TcpListener, directory: &Path) {
    fs::write(log(directory), "").unwrap();
    for stream in listener.incoming() {
        let directory = directory.to_owned();
        thread::spawn(move || answer(stream.unwrap(), &directory));
    }
}

fn log(directory: &Path) -> PathBuf {
    directory.join("log")
}

/// What the server there heard: `POST /v1/chat/completions at 10.77.0.2`.
pub(super) fn heard(directory: &Path) -> Vec<String> {
    fs::read_to_string(log(directory)).unwrap().lines().map(str::to_owned).collect()
}

pub(super) fn posts(directory: &Path) -> usize {
    heard(directory).iter().filter(|it| it.starts_with("POST ")).count()
}

/// What the server there is from now on.
pub(super) fn becomes(directory: &Path, kind: &str) {
    let path = directory.join("kind");
    fs::write(path.with_extension("new"), kind).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn answer(mut stream: TcpStream, directory: &Path) {
    let at = stream.local_addr().unwrap().ip();
    let kind = fs::read_to_string(directory.join("kind")).unwrap();
    if kind != "tls" {
        return converse(&mut stream, at, &kind, directory);
    }
    let mut stream = StreamOwned::new(ServerConnection::new(tls(directory)).unwrap(), stream);
    converse(&mut stream, at, &kind, directory);
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// Gives the server there another key, which nobody vouches for.
pub(super) fn new_key(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["somebody.example".to_owned()]).unwrap();
    fs::write(directory.join("certificate"), made.cert.der()).unwrap();
    fs::write(directory.join("key"), made.signing_key.serialize_der()).unwrap();
}

fn tls(directory: &Path) -> Arc<ServerConfig> {
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from(read("certificate"))];
    let key = PrivateKeyDer::Pkcs8(read("key").into());
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn converse(stream: &mut (impl Read + Write), at: IpAddr, kind: &str, directory: &Path) {
    let Some(request) = read(stream) else { return };
    let line = request.split(" HTTP/").next().unwrap_or_default().to_owned();
    let mut log = OpenOptions::new().append(true).open(log(directory)).unwrap();
    let with_key = request.to_ascii_lowercase().contains("authorization: bearer sesame");
    let key = if with_key { " with its key" } else { "" };
    log.write_all(format!("{line} at {at}{key}\n").as_bytes()).unwrap();
    let (owner, price) = match kind {
        "vllm" => ("vllm", Value::Null),
        "gateway" => ("somebody", json!({"prompt": "0.1"})),
        "locked" if !with_key => return turn_away(stream),
        _ => ("me", Value::Null),
    };
    let (status, sort, body) = match line.as_str() {
        "GET /v1/models" => {
            let model = json!({"id": "far", "object": "model", "owned_by": owner, "pricing": price});
            (200, "application/json", json!({"object": "list", "data": [model]}).to_string())
        }
        "POST /v1/chat/completions" => {
            let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "far",
                "choices": [{"index": 0, "delta": {"role": "assistant", "content": "w1"}, "finish_reason": "stop"}]});
            (200, "text/event-stream", format!("data: {chunk}\n\ndata: [DONE]\n\n"))
        }
        _ => (404, "application/json", json!({"error": {"message": "no such route"}}).to_string()),
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {sort}\r\ncontent-length: {}\r\n", body.len());
    let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
}

fn turn_away(stream: &mut impl Write) {
    let body = json!({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}});
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 401 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
}

fn read(stream: &mut impl Read) -> Option<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|it| *it > 0)?;
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lengths = head
            .lines()
            .filter_map(|it| it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= lengths.into_iter().next().unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}

pub(super) fn text(args: &[&str], output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
