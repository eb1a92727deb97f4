//! `lovablectl` for scripts: codes, JSON, and what it says when something is missing.

use std::{process::Stdio, time::Duration};

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixListener,
    time::{Instant, timeout},
};

use crate::lifecycle::{Home, LOVABLECTL, PATIENCE, check, output, until};

#[tokio::test]
async fn without_a_daemon_it_says_how_to_start_one() {
    let home = Home::new();
    for args in [
        &["status"][..],
        &["--json", "status"],
        &["servers"],
        &["models"],
        &["stats"],
        &["events"],
        &["generate", "x"],
        &["servers", "add", "http://127.0.0.1:1"],
        &["status", "--wait", "100ms"],
    ] {
        let ended = home.ctl(args).await;
        check(&ended, 3, &["cannot reach lovabled at", "Start it", "lovabled "]);
        assert!(ended.stdout.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn wrong_usage_is_told_from_all_else() {
    let home = Home::new();
    for args in [
        &[][..],
        &["nonsense"],
        &["status", "--timeout", "5"],
        &["stats", "--by", "weather"],
        &["servers", "add", "ftp://x"],
        &["generate", "--temperature", "warm", "x"],
        &["generate", ""],
        &["config", "check", "nowhere.toml"],
    ] {
        check(&home.ctl(args).await, 2, &[]);
    }
    check(&home.ctl(&["statsu"]).await, 2, &["stats"]);
    check(&home.ctl(&["--version"]).await, 0, &[env!("CARGO_PKG_VERSION")]);
}

#[tokio::test]
async fn without_a_server_it_says_what_was_looked_for() {
    let home = Home::new();
    let running = home.start(&[]).await;
    let looked = &["Looked for", "Ollama", "ollama serve"];
    check(&home.ctl(&["status"]).await, 4, looked);
    check(&home.ctl(&["generate", "x"]).await, 4, looked);
    check(&home.ctl(&["generate", "-m", "some-model", "x"]).await, 4, looked);
    check(&home.ctl(&["servers"]).await, 0, looked);
    check(&home.ctl(&["models"]).await, 0, looked);
    check(&home.ctl(&["status", "--wait", "100ms"]).await, 4, &["not ready after"]);
    let json = home.ctl(&["--json", "status"]).await;
    check(&json, 4, &[]);
    assert!(json.stderr.is_empty(), "{json:?}");
    running.stop().await;
}

#[tokio::test]
async fn with_a_server_everything_is_fine_until_a_request_fails() {
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let home = Home::with(&server);
    let waits = home.ctl(&["status", "--wait"]);
    let (running, waited) = tokio::join!(home.start(&[]), waits);
    check(&waited, 0, &["is ready"]);
    check(&home.ctl(&["status", "--wait", "1h"]).await, 0, &["is ready"]);
    let answer = home.ctl(&["generate", "-m", "sim", "x"]).await;
    check(&answer, 0, &["w1 w2 w3"]);
    assert!(answer.stderr.is_empty(), "{answer:?}");
    check(&home.ctl(&["generate", "-m", "simm", "x"]).await, 1, &["simm", "sim"]);
    check(&home.ctl(&["models", "simm"]).await, 1, &["sim"]);
    check(&home.ctl(&["servers", "drain", "nobody"]).await, 1, &["nobody", "vllm"]);
    server.change(|script| {
        script.plan = Plan::Always(Fault::ALL.iter().copied().find(|it| it.blames_the_request()).unwrap())
    });
    check(&home.ctl(&["generate", "-m", "sim", "x"]).await, 1, &["lovablectl:"]);
    running.stop().await;
}

#[tokio::test]
async fn json_is_exactly_what_the_api_said() {
    let server = Simulated::start(Shape::Ollama, Script::default()).await.unwrap();
    let home = Home::with(&server);
    let running = home.start(&[]).await;
    home.ready().await;
    home.caller().chat("sim", false).await.unwrap();
    for (args, path) in [
        (&["status"][..], "/lovable/v1/status"),
        (&["servers"], "/lovable/v1/servers"),
        (&["servers", "list"], "/lovable/v1/servers"),
        (&["models"], "/lovable/v1/models"),
        (&["models", "sim"], "/lovable/v1/models/sim"),
        (&["stats", "--by", "model"], "/lovable/v1/stats?by=model"),
        (&["config", "show"], "/lovable/v1/config"),
    ] {
        let args = [&["--json"], args].concat();
        // Clocks go on between the two questions; at some time they say the same.
        until(&format!("{args:?} is the same"), async || {
            let said = home.ctl(&args).await;
            assert!(said.stderr.is_empty(), "{said:?}");
            let api = home.caller().get(path).await.body;
            (said.stdout == api).then_some(())
        })
        .await;
    }
    let refused = home.ctl(&["--json", "models", "simm"]).await;
    check(&refused, 1, &[]);
    let said: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(said["error"]["code"], "model_not_found");
    running.stop().await;
}

#[tokio::test]
async fn a_silent_daemon_is_given_up_soon() {
    let home = Home::new();
    std::fs::create_dir(home.at("run/lovable")).unwrap();
    std::fs::set_permissions(home.at("run/lovable"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    // It takes connections, as the system does for a daemon that hangs.
    let _listener = UnixListener::bind(home.socket()).unwrap();
    let begun = Instant::now();
    check(&home.ctl(&["status"]).await, 3, &["does not answer within 2.0 s"]);
    check(&home.ctl(&["servers", "--timeout", "300ms"]).await, 3, &["does not answer within 0.3 s"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_interrupted_command_says_so_with_its_code() {
    let home = Home::new();
    let running = home.start(&[]).await;
    let mut command = home.command(LOVABLECTL);
    let mut child = command.arg("events").stdout(Stdio::piped()).spawn().unwrap();
    // It runs once it has said something.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.contains("no server is known"), "{line}");
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(130));
    running.stop().await;
}

#[tokio::test]
async fn a_reader_who_has_enough_is_no_trouble() {
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let home = Home::with(&server);
    let running = home.start(&[]).await;
    home.ready().await;
    for args in [&["status"][..], &["--json", "servers"], &["generate", "x"], &["events"], &["--help"]] {
        let mut command = home.command(LOVABLECTL);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Gone before the first word is.
        drop(child.stdout.take());
        let ended = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
        assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{args:?}: {ended:?}");
    }
    let _ = output(home.lovabled(&["--version"])).await;
    running.stop().await;
}
