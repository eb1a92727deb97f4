//! No byte of a prompt goes anywhere but to the chosen server, and none stays.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use rustix::process::Signal;
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::{
    caller::{Answer, chat, request},
    daemon::{Daemon, Options},
    lifecycle::{Home, LOVABLED, output},
    monitoring::otlp::takes_all,
};

/// Different in each request, so that one request's phrase in another's answer shows.
fn phrase(number: usize) -> String {
    format!("xylophone-{number}-quagmire")
}

/// A listener where no lovable looks by itself, on a port of remote screens: one
/// may well run on this machine, and what comes here is counted.
pub(crate) async fn quiet() -> TcpListener {
    for port in 5900..5984 {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
    }
    panic!("84 ports are taken")
}

/// A listener that counts the bytes that reach it; none ever should.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = quiet().await;
    let port = listener.local_addr().unwrap().port();
    let caught = Arc::new(AtomicUsize::new(0));
    let count = caught.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    count.fetch_add(read, Relaxed);
                }
            });
        }
    });
    (port, caught)
}

#[tokio::test]
async fn a_proxy_in_the_environment_and_a_redirect_see_nothing() {
    let (proxy, through_proxy) = trap().await;
    let (elsewhere, redirected) = trap().await;
    let script = Script {
        plan: Plan::Always(Fault::Redirect),
        elsewhere: format!("http://127.0.0.1:{elsewhere}/v1/chat/completions"),
        ..Script::default()
    };
    let redirecting = Simulated::start(Shape::Vllm, script).await.unwrap();
    let good = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let mut options = Options::alone().simulated(&redirecting, "redirecting", 0).simulated(&good, "good", 10);
    let url = format!("http://127.0.0.1:{proxy}");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"] {
        options = options.env(name, &url);
    }
    let daemon = options.start().await;
    for stream in [true, false] {
        assert_eq!(daemon.caller().chat("sim", stream).await.unwrap().status, 200);
    }
    assert!(redirecting.counts().received > 0, "the redirecting server was asked");
    assert_eq!(through_proxy.load(Relaxed), 0, "bytes went through the proxy");
    assert_eq!(redirected.load(Relaxed), 0, "bytes followed the redirect");
}

#[tokio::test]
async fn a_phrase_in_a_prompt_is_in_no_log_no_file_and_no_other_answer() {
    let script = || Script { words: 20, between: Duration::from_millis(1), after: 3, ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script()).await.unwrap();
    let collector = quiet().await;
    let port = collector.local_addr().unwrap().port();
    let told = Arc::<Mutex<Vec<u8>>>::default();
    tokio::spawn(takes_all(collector, told.clone()));
    let mut daemon = Options::alone()
        .env("LOVABLE_LOG", "trace")
        .config(&format!("[stats]\notlp = \"http://127.0.0.1:{port}\"\n"))
        .config("[patience]\nfirst_token = \"300ms\"\ngap = \"300ms\"\nload = \"300ms\"\nbefore_commit = \"1s\"\n")
        .simulated(&server, "sim", 0)
        .start()
        .await;
    let mut number = 0;
    let plans = [
        None,
        Some(Fault::BadRequest),
        Some(Fault::Unprocessable),
        Some(Fault::ServerError),
        Some(Fault::ErrorInOk),
        Some(Fault::ErrorThenDone),
        Some(Fault::DieMidStream),
        Some(Fault::DieMidFrame),
        Some(Fault::TruncatedJson),
        Some(Fault::HalfCharacter),
        Some(Fault::BareText),
        Some(Fault::StallInMiddle),
        Some(Fault::GiantHead),
        Some(Fault::NotHttp),
    ];
    for plan in plans {
        server.change(|script| script.plan = plan.map_or(Plan::Never, Plan::Always));
        for stream in [true, false] {
            for path in ["/v1/chat/completions", "/v1/completions", "/lovable/v1/generate"] {
                number += 1;
                let said = phrase(number);
                let body = match path {
                    "/v1/chat/completions" => chat("sim", stream, &said),
                    _ => json!({"model": "sim", "stream": stream, "prompt": said}),
                };
                let answer = daemon.caller().post(path, &body).await;
                only_its_own(&answer, number);
            }
        }
    }
    // Refused by the daemon itself: in the body, in the wrong place, in the model's name's neighbourhood.
    for body in [
        format!("{{\"model\": \"sim\", \"messages\": \"{}\"}}", phrase(9001)),
        format!("{{\"model\": \"sim\", \"messages\": [{}", phrase(9002)),
        format!("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{}\"}}]}}", phrase(9003)),
    ] {
        let answer =
            daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), &[])).await.unwrap();
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    // A caller that leaves in the middle.
    let caller = daemon.caller();
    let _ = tokio::time::timeout(Duration::from_millis(10), caller.chat("sim", true)).await;

    for path in [
        "/lovable/v1/requests",
        "/lovable/v1/status",
        "/lovable/v1/servers",
        "/lovable/v1/models",
        "/lovable/v1/stats",
        "/lovable/v1/stats/export?format=csv",
        "/lovable/v1/stats/export?format=jsonl",
        "/lovable/v1/config",
        "/metrics",
    ] {
        let answer = daemon.caller().get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.text().contains("quagmire"), "{path} has it: {}", answer.text());
    }
    each_request(&daemon).await;
    each_export(&daemon).await;
    assert!(daemon.stop().await.success());
    {
        // The last of it comes while the daemon stops.
        let told = told.lock().unwrap();
        let has = |text: &[u8]| memchr::memmem::find(&told, text).is_some();
        assert!(has(b"POST /v1/traces") && has(b"POST /v1/metrics") && told.len() > 5_000);
        assert!(!has(b"quagmire"), "a collector was told");
    }
    let log = daemon.log();
    assert!(log.len() > 1000, "the log is really on: {log}");
    let line = log.lines().find(|line| line.contains("quagmire"));
    assert_eq!(line, None, "in the log");
    let mut files = 0;
    walk(&daemon.state(), &mut |path| {
        files += 1;
        let bytes = fs::read(path).unwrap();
        assert!(memchr::memmem::find(&bytes, b"quagmire").is_none(), "in {}", path.display());
    });
    assert!(files > 0 && daemon.state().join("outcomes").is_dir(), "there is a store");
}

#[tokio::test]
async fn a_crash_leaves_no_picture_of_what_was_in_memory() {
    let home = Home::new();
    // Both in the home, and asked for whatever the machine has as its default.
    let crash = "ulimit -c unlimited || exit; kill -ABRT $$";
    let mut other = home.command("sh");
    other.args(["-c", crash]);
    if !output(other).await.status.core_dumped() {
        eprintln!("left out: nothing leaves a core here");
        return;
    }
    let mut command = home.command("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\"", LOVABLED]);
    let mut running = home.answering(home.spawn(command), &home.socket()).await;
    running.signal(Signal::ABORT);
    let ended = running.ended().await;
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!ended.core_dumped());
}

/// An answer may quote the prompt of its own request and no other.
fn only_its_own(answer: &Answer, number: usize) {
    let text = answer.text().replace(&phrase(number), "");
    assert!(!text.contains("quagmire"), "request {number} got another's phrase: {text}");
}

async fn each_request(daemon: &Daemon) {
    let list = daemon.caller().get("/lovable/v1/requests?limit=1000").await.json();
    let requests = list["requests"].as_array().unwrap();
    assert!(requests.len() > 50, "{list}");
    for request in requests {
        let id = request["request_id"].as_str().unwrap();
        let answer = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await;
        assert!(!answer.text().contains("quagmire"), "{}", answer.text());
    }
}

/// What people take away of it has all requests, and nothing that was said in them.
async fn each_export(daemon: &Daemon) {
    let directory = tempfile::tempdir().unwrap();
    for format in ["csv", "jsonl", "sqlite", "parquet"] {
        let file = directory.path().join(format);
        let output = daemon.ctl(&["stats", "export", "--format", format, "-o", file.to_str().unwrap()]).await;
        assert!(output.status.success(), "{output:?}");
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.len() > 5_000, "{format} has {} bytes", bytes.len());
        assert!(memchr::memmem::find(&bytes, b"quagmire").is_none(), "{format} has it");
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, see) } else { see(&path) }
    }
}
