//! `lovablectl exec`: a program between us and the daemon that knows nothing of sockets.

use std::{process::Output, time::Duration};

use lovable::simulate::{Script, Shape, Simulated, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
    terminal::Terminal,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn daemon() -> (Daemon, Simulated) {
    let script = Script { words: 12, ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let daemon = Options::alone().simulated(&server, "sim", 0).start().await;
    (daemon, server)
}

/// Runs a shell script under the bridge.
async fn script(daemon: &Daemon, script: &str) -> Output {
    daemon.ctl(&["exec", "--", "sh", "-c", script]).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[tokio::test]
async fn the_program_finds_where_to_ask_and_with_which_key() {
    let (daemon, _server) = daemon().await;
    let output = script(
        &daemon,
        "echo $OPENAI_BASE_URL $OPENAI_API_KEY $ANTHROPIC_BASE_URL $ANTHROPIC_API_KEY $OLLAMA_HOST $OLLAMA_API_KEY",
    )
    .await;
    let said = said(&output);
    let words: Vec<_> = said.split(' ').collect();
    let [openai, key, anthropic, anthropic_key, ollama, ollama_key] = words[..] else { panic!("{said}") };
    assert!(anthropic.starts_with("http://127.0.0.1:"), "{said}");
    assert_eq!(openai, format!("{anthropic}/v1"));
    assert_eq!(ollama, format!("{anthropic}/{key}"));
    assert_eq!([anthropic_key, ollama_key], [key, key]);
}

#[tokio::test]
async fn the_bridge_admits_the_key_in_each_of_its_places_and_nobody_else() {
    let (daemon, _server) = daemon().await;
    let status = "curl -s -o /dev/null -w '%{http_code} '";
    let output = script(
        &daemon,
        &format!(
            "{status} -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/models
             {status} -H \"x-api-key: $ANTHROPIC_API_KEY\" $ANTHROPIC_BASE_URL/v1/models
             {status} $OLLAMA_HOST/v1/models
             {status} $OPENAI_BASE_URL/models
             {status} -H \"authorization: Bearer x$OPENAI_API_KEY\" $OPENAI_BASE_URL/models
             {status} -H 'x-api-key: wrong' $OPENAI_BASE_URL/models
             {status} $ANTHROPIC_BASE_URL/wrong/v1/models
             {status} -H 'host: evil.example' $OLLAMA_HOST/v1/models
             {status} -H 'origin: https://evil.example' $OLLAMA_HOST/v1/models
             {status} -H 'sec-fetch-site: cross-site' $OLLAMA_HOST/v1/models
             {status} $OLLAMA_HOST/lovable/v1/servers
             {status} -X POST $OLLAMA_HOST/lovable/v1/probe
             {status} -X DELETE $OLLAMA_HOST/lovable/v1/servers/sim"
        ),
    )
    .await;
    assert_eq!(said(&output), "200 200 200 401 401 401 401 403 403 403 200 403 403");
    assert_eq!(daemon.servers().await.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_in_the_callers_own_shape() {
    let (daemon, _server) = daemon().await;
    let output = script(
        &daemon,
        "for path in v1/chat/completions v1/messages api/chat; do
             curl -s -d '{}' $ANTHROPIC_BASE_URL/$path; echo
         done",
    )
    .await;
    let bodies: Vec<Value> = said(&output).lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let [openai, anthropic, ollama] = &bodies[..] else { panic!("{bodies:?}") };
    let says = "this bridge admits only";
    assert_eq!(openai["error"]["code"], "invalid_api_key");
    assert!(openai["error"]["message"].as_str().unwrap().starts_with(says), "{openai}");
    assert_eq!(
        (&anthropic["type"], &anthropic["error"]["type"]),
        (&"error".into(), &"authentication_error".into())
    );
    assert!(ollama["error"].as_str().unwrap().starts_with(says), "{ollama}");
}

#[tokio::test]
async fn answers_come_over_the_bridge_streamed_and_not() {
    let (daemon, _server) = daemon().await;
    for stream in [true, false] {
        let body =
            format!(r#"{{"model":"sim","stream":{stream},"messages":[{{"role":"user","content":"x"}}]}}"#);
        let asks = format!("curl -sSfN $OLLAMA_HOST/v1/chat/completions -d '{body}'");
        let output = script(&daemon, &asks).await;
        let said = said(&output);
        if stream {
            assert!(said.ends_with("data: [DONE]") && said.matches("data: ").count() > 12, "{said}");
        } else {
            let body: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(body["choices"][0]["message"]["content"], text(12));
        }
    }
}

#[tokio::test]
async fn a_program_that_leaves_in_the_middle_frees_the_server() {
    let server = Scripted::start(|_, mut line| async move {
        let word = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"w1 \"}}]}\n\n";
        line.say(format!("{STREAM}{word}")).await;
        line.until_left().await;
    })
    .await;
    let daemon = Options::alone().server(server.endpoint(), "a", 0).start().await;
    let asks = "curl -sN --max-time 1 $OLLAMA_HOST/v1/chat/completions -d \
                '{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}'; read line";
    let mut child = ctl(&daemon, &["exec", "sh", "-c", asks]).spawn().unwrap();
    // The program itself goes on, and so does the bridge.
    server.until_left().await;
    child.kill().await.unwrap();
}

/// `lovablectl` with pipes.
fn ctl(daemon: &Daemon, args: &[&str]) -> Command {
    ctl_by(&[], daemon, args)
}

/// lovablectl, started by another program.
fn ctl_by(by: &[&str], daemon: &Daemon, args: &[&str]) -> Command {
    let line = [by, &[env!("CARGO_BIN_EXE_lovablectl"), "--socket"]].concat();
    let mut command = Command::new(line[0]);
    command.args(&line[1..]).arg(daemon.socket()).args(args).kill_on_drop(true);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    command
}

#[tokio::test]
async fn the_end_of_the_program_is_our_end() {
    let (daemon, _server) = daemon().await;
    for (args, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["no-such-program-anywhere"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let output = daemon.ctl(&[&["exec"], args].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn what_the_program_reads_and_writes_is_its_own() {
    let (daemon, _server) = daemon().await;
    let mut child = ctl(&daemon, &["exec", "sh", "-c", "cat; echo talk >&2"]).spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut child.stdin.take().unwrap(), b"a\0b").await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"a\0b"[..], &b"talk\n"[..]));
}

#[tokio::test]
async fn the_port_is_gone_with_the_program() {
    let (daemon, _server) = daemon().await;
    let output = script(&daemon, "echo $ANTHROPIC_BASE_URL").await;
    let said = said(&output);
    let address = said.strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "{address}");
}

#[tokio::test]
async fn without_a_daemon_the_program_is_not_started() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let output = Command::new(env!("CARGO_BIN_EXE_lovablectl"))
        .arg("--socket")
        .arg(&socket)
        .args(["exec", "sh", "-c", "echo started"])
        .output()
        .await
        .unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b""[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot reach lovabled at"));
}

/// Waits for the first line of a program, which says that it is ready.
async fn ready(child: &mut Child) -> BufReader<tokio::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    timeout(PATIENCE, lines.read_line(&mut line)).await.unwrap().unwrap();
    assert_eq!(line, "ready\n");
    lines
}

#[tokio::test]
async fn signals_reach_the_program() {
    let (daemon, _server) = daemon().await;
    for (name, signal) in [
        ("INT", Signal::INT),
        ("TERM", Signal::TERM),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
    ] {
        let waits = format!("trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.02; done");
        // Whoever runs the tests may have had signals ignored, as `nohup` does.
        let mut child =
            ctl_by(&["env", "--default-signal"], &daemon, &["exec", "sh", "-c", &waits]).spawn().unwrap();
        let mut lines = ready(&mut child).await;
        kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), signal).unwrap();
        let ended = timeout(PATIENCE, child.wait()).await.expect(name).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).await.unwrap();
        assert_eq!((ended.code(), rest.as_str()), (Some(9), "caught\n"), "{name}");
    }
}

#[tokio::test]
async fn what_was_ignored_stays_ignored() {
    let (daemon, _server) = daemon().await;
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_lovablectl"), "--socket"]);
    command.arg(daemon.socket()).args(["exec", "sh", "-c", "kill -HUP $$; echo alive"]);
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"alive\n"[..]));
}

#[tokio::test]
async fn a_key_on_the_terminal_reaches_the_program_once() {
    let (daemon, _server) = daemon().await;
    // It counts for a while after the first one, so that a second one would be seen.
    let counts = "import signal, time
count = 0
def more(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, more)
print('ready', flush=True)
while not count: time.sleep(0.01)
time.sleep(0.3)
print('count', count, flush=True)";
    let mut terminal = Terminal::start(&ctl(&daemon, &["exec", "python3", "-c", counts]));
    terminal.answers("ready", "\x03").await;
    terminal.until("count 1").await;
    assert_eq!(terminal.ended().await.code(), Some(0));
}
