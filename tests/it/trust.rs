//! Servers on another machine, which wait until somebody trusts them, and callers from there.
//!
//! The other machine is a network namespace at the end of a cable. Addresses of loopback are
//! no other machine, and neither is an address of one's own. It takes root to make one; without
//! it the tests say that they were left out.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{
    caller::Verdict,
    daemon::{Daemon, Options},
};

/// Set in the process that runs in a network of its own: which test it is.
const INSIDE: &str = "LOVABLE_TEST_TRUST";
/// Set in the process that is the server on the other machine: where it works.
const REMOTE: &str = "LOVABLE_TEST_REMOTE";
const HERE: &str = "10.77.0.1";
const THERE: &str = "10.77.0.2";
/// Of documentation, so surely not near.
const FAR: &str = "203.0.113.5";
const PORT: u16 = 8000;

/// Runs one of the tests below in a network of its own.
async fn in_a_network(story: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: another machine (a network namespace) needs root");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "trust::inside", "--nocapture"]).env(INSIDE, story);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.expect("unshare of util-linux is there");
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_server_on_another_machine_gets_nothing_until_it_is_trusted() {
    in_a_network("server").await;
}

#[tokio::test]
async fn a_name_that_changes_its_address_takes_no_prompt_with_it() {
    in_a_network("name").await;
}

#[tokio::test]
async fn from_another_machine_the_token_is_wanted() {
    in_a_network("caller").await;
}

/// What the tests above run in a network of their own.
#[tokio::test]
async fn inside() {
    let Some(story) = std::env::var_os(INSIDE) else { return };
    let machine = Machine::start().await;
    match story.to_str().unwrap() {
        "server" => server(&machine).await,
        "name" => name(&machine).await,
        "caller" => caller(&machine).await,
        other => panic!("no story {other}"),
    }
}

async fn server(there: &Machine) {
    let mut daemon = Options::alone().start().await;
    let url = format!("http://{THERE}:{PORT}");
    ctl(&daemon, &["servers", "add", &url]).await;
    let seen = until(&daemon, "it is found", |it| it["standing"] == "up").await;
    assert_eq!(
        (&seen["admission"], &seen["zone"], &seen["trust"], &seen["found_by"]),
        (&json!("untrusted"), &json!("lan"), &Value::Null, &json!(["added"]))
    );
    let list = ctl(&daemon, &["servers"]).await;
    assert!(list.contains("servers trust openai-compatible-8000"), "{list}");
    everything_is_refused(&daemon).await;
    assert!(there.heard().iter().all(|it| it.starts_with("GET ")), "{:?}", there.heard());

    let said = ctl(&daemon, &["servers", "trust", "openai-compatible-8000"]).await;
    assert!(said.contains(&format!("openai-compatible at {url}")), "{said}");
    // At once, and whatever happens to the daemon after it was said.
    daemon.kill().await;
    daemon.start_again();
    daemon.until_answering().await;
    let seen = until(&daemon, "it is trusted", |it| it["admission"] == "open").await;
    assert_eq!(seen["trust"], json!({"address": url, "kind": "openai-compatible", "tls_pin": null}));
    is_answered(&daemon).await;
    assert!(there.posts() > 0);

    // Something else answers there now.
    there.becomes("vllm");
    ctl(&daemon, &["servers", "probe"]).await;
    let seen = until(&daemon, "it has changed", |it| it["kind"] == "vllm").await;
    assert_eq!((&seen["admission"], &seen["problem"]), (&json!("untrusted"), &json!("changed_kind")));
    let before = there.posts();
    everything_is_refused(&daemon).await;
    assert_eq!(there.posts(), before);
    let id = seen["id"].as_str().unwrap();
    ctl(&daemon, &["servers", "trust", id]).await;
    is_answered(&daemon).await;

    ctl(&daemon, &["servers", "distrust", id]).await;
    daemon.kill().await;
    daemon.start_again();
    daemon.until_answering().await;
    until(&daemon, "it is known", |it| it["admission"] == "untrusted").await;
    let before = there.posts();
    everything_is_refused(&daemon).await;
    assert_eq!(there.posts(), before);
}

async fn name(there: &Machine) {
    // Names of this network alone.
    let hosts = there.directory.path().join("hosts");
    let leads_to = |ip: &str| fs::write(&hosts, format!("127.0.0.1 localhost\n{ip} gpubox\n")).unwrap();
    leads_to(THERE);
    run("mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]).await;
    let config = format!("[[servers]]\nurl = \"http://gpubox:{PORT}\"\n");
    let daemon = Options::alone().config(&config).start().await;
    let seen = until(&daemon, "it is found", |it| it["standing"] == "up").await;
    assert_eq!((&seen["admission"], &seen["zone"]), (&json!("open"), &json!("lan")));
    is_answered(&daemon).await;
    let near = there.heard().len();
    leads_to(FAR);
    // Longer than a connection is kept.
    sleep(Duration::from_secs(5)).await;
    everything_is_refused(&daemon).await;
    let far = there.heard().split_off(near).into_iter().filter(|it| it.ends_with(FAR)).count();
    assert_eq!(far, 0, "{:?}", there.heard());
    let fault = until(&daemon, "it says why", |it| it["last_fault"]["cause"] == "too_far").await;
    assert_eq!(fault["zone"], "lan");
    leads_to(THERE);
    ctl(&daemon, &["servers", "probe"]).await;
    until(&daemon, "it is back", |it| it["standing"] == "up").await;
    is_answered(&daemon).await;
}

async fn caller(there: &Machine) {
    let token = there.directory.path().join("token");
    fs::write(&token, "sesame-opens-this\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let lines = format!(
        "[listen]\naddress = \"{HERE}:8765\"\nallow_remote = true\ntoken_file = \"{}\"\n",
        token.display()
    );
    let _daemon = Options::alone().config(&lines).start().await;
    let right = "authorization: Bearer sesame-opens-this";
    for (headers, status) in [
        (&[][..], "401"),
        (&["authorization: Bearer sesame-opens-thus"], "401"),
        (&["authorization: Bearer "], "401"),
        (&["x-api-key: sesame"], "401"),
        (&[right], "200"),
        (&["authorization: bearer sesame-opens-this"], "200"),
        (&["x-api-key: sesame-opens-this"], "200"),
        (&[right, "host: localhost"], "200"),
        (&[right, "host: evil.example"], "403"),
        (&[right, "origin: https://evil.example"], "403"),
    ] {
        for path in ["/v1/models", "/healthz", "/lovable/v1/servers", "/api/tags"] {
            let mut args = vec!["-s", "-o", "/dev/null", "-w", "%{http_code}"];
            headers.iter().for_each(|it| args.extend(["-H", it]));
            let url = format!("http://{HERE}:8765{path}");
            args.push(&url);
            assert_eq!(there.run("curl", &args).await, status, "{headers:?} {path}");
        }
    }
    let probe = format!("http://{HERE}:8765/lovable/v1/probe");
    let args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", right, &probe];
    assert_eq!(there.run("curl", &args).await, "403", "nothing is changed over TCP");
}

#[tokio::test]
async fn who_is_distrusted_is_shown_no_key_though_the_configuration_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    becomes(directory.path(), "locked");
    let at = directory.path().to_owned();
    thread::spawn(move || serve(listener, &at));
    let config = format!("[[servers]]\nurl = \"{url}\"\nname = \"locked\"\nkey_env = \"ITS_KEY\"\n");
    let daemon = Options::alone().config(&config).env("ITS_KEY", "sesame").start().await;
    until(&daemon, "it is open", |it| it["problem"].is_null() && it["admission"] == "open").await;
    is_answered(&daemon).await;
    assert!(heard(directory.path()).iter().any(|it| it.ends_with("with its key")));
    ctl(&daemon, &["servers", "distrust", "locked"]).await;
    let before = heard(directory.path()).len();
    for _ in 0..3 {
        ctl(&daemon, &["servers", "probe"]).await;
        everything_is_refused(&daemon).await;
        sleep(Duration::from_millis(1200)).await;
    }
    let since = heard(directory.path()).split_off(before);
    assert!(!since.is_empty() && since.iter().all(|it| it.starts_with("GET ")), "{since:?}");
    assert!(since.iter().all(|it| !it.ends_with("with its key")), "{since:?}");
    ctl(&daemon, &["servers", "trust", "locked"]).await;
    ctl(&daemon, &["servers", "probe"]).await;
    until(&daemon, "it is open again", |it| it["problem"].is_null() && it["admission"] == "open").await;
    is_answered(&daemon).await;
}

#[tokio::test]
async fn a_gateway_on_this_machine_is_in_the_cloud_unless_its_zone_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    becomes(directory.path(), "gateway");
    let at = directory.path().to_owned();
    thread::spawn(move || serve(listener, &at));
    let mut daemon = Options::alone().start().await;
    ctl(&daemon, &["servers", "add", &url]).await;
    for _ in 0..2 {
        let seen = until(&daemon, "it is found", |it| it["standing"] == "up").await;
        assert_eq!((&seen["admission"], &seen["zone"]), (&json!("open"), &json!("cloud")));
        everything_is_refused(&daemon).await;
        let answer = daemon.caller().get("/readyz").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let list = ctl(&daemon, &["servers"]).await;
        assert!(list.contains("counts as cloud"), "{list}");
        daemon.kill().await;
        daemon.start_again();
        daemon.until_answering().await;
    }
    drop(daemon);
    assert_eq!(posts(directory.path()), 0);
    let config = format!("[[servers]]\nurl = \"{url}\"\nzone = \"machine\"\n");
    let daemon = Options::alone().config(&config).start().await;
    let seen = until(&daemon, "it is found", |it| it["standing"] == "up").await;
    assert_eq!(seen["zone"], "machine");
    is_answered(&daemon).await;
}

async fn ctl(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.ctl(args).await;
    text(args, &output)
}

fn text(args: &[&str], output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until the one server is as wanted.
async fn until(daemon: &Daemon, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    daemon.until(what, |servers| servers.len() == 1 && is(&servers[0])).await.remove(0)
}

async fn everything_is_refused(daemon: &Daemon) {
    for model in ["far", "auto", "far@openai-compatible-8000", "far@vllm-8000", "gpt-5"] {
        for stream in [false, true] {
            let answer = daemon.caller().chat(model, stream).await.unwrap();
            assert!(answer.status >= 400, "{model}: {}", answer.text());
        }
    }
}

async fn is_answered(daemon: &Daemon) {
    for stream in [false, true] {
        let answer = daemon.caller().chat("far", stream).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Whole(1)), "{}\n{}", answer.text(), daemon.log());
    }
}

/// Another machine, with a server on it that notes what it hears.
struct Machine {
    directory: tempfile::TempDir,
    holder: Child,
    _server: Child,
}

impl Machine {
    /// Makes it, at the other end of a cable to this network.
    async fn start() -> Self {
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
        command.args(["--exact", "trust::remote", "--nocapture"]).env_remove(INSIDE);
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

    fn heard(&self) -> Vec<String> {
        heard(self.directory.path())
    }

    fn posts(&self) -> usize {
        posts(self.directory.path())
    }

    fn becomes(&self, kind: &str) {
        becomes(self.directory.path(), kind);
    }

    /// Runs a program there, and says what it said.
    async fn run(&self, program: &str, args: &[&str]) -> String {
        let pid = self.holder.id().unwrap().to_string();
        run("nsenter", &[&["-t", &pid, "-n", program][..], args].concat()).await
    }
}

async fn run(program: &str, args: &[&str]) -> String {
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
    let Some(directory) = std::env::var_os(REMOTE).map(PathBuf::from) else { return };
    serve(TcpListener::bind(("0.0.0.0", PORT)).unwrap(), &directory);
}

/// Serves for ever as what the file `kind` says, and notes what it hears.
fn serve(listener: TcpListener, directory: &Path) {
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
fn heard(directory: &Path) -> Vec<String> {
    fs::read_to_string(log(directory)).unwrap().lines().map(str::to_owned).collect()
}

fn posts(directory: &Path) -> usize {
    heard(directory).iter().filter(|it| it.starts_with("POST ")).count()
}

/// What the server there is from now on.
fn becomes(directory: &Path, kind: &str) {
    let path = directory.join("kind");
    fs::write(path.with_extension("new"), kind).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn answer(mut stream: TcpStream, directory: &Path) {
    let at = stream.local_addr().unwrap().ip();
    let Some(request) = read(&mut stream) else { return };
    let line = request.split(" HTTP/").next().unwrap_or_default().to_owned();
    let mut log = OpenOptions::new().append(true).open(log(directory)).unwrap();
    let with_key = request.to_ascii_lowercase().contains("authorization: bearer sesame");
    let key = if with_key { " with its key" } else { "" };
    log.write_all(format!("{line} at {at}{key}\n").as_bytes()).unwrap();
    let (owner, price) = match fs::read_to_string(directory.join("kind")).unwrap().as_str() {
        "vllm" => ("vllm", Value::Null),
        "gateway" => ("somebody", json!({"prompt": "0.1"})),
        "locked" if !with_key => return turn_away(&mut stream),
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

fn turn_away(stream: &mut TcpStream) {
    let body = json!({"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}});
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 401 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
}

fn read(stream: &mut TcpStream) -> Option<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|it| *it > 0)?;
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lengths = head
            .lines()
            .filter_map(|it| it.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= lengths.into_iter().next().unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}
