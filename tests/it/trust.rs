//! Servers on another machine, which wait until somebody trusts them, and callers from there.
//!
//! The other machine is a network namespace at the end of a cable. Addresses of loopback are
//! no other machine, and neither is an address of one's own. It takes root to make one; without
//! it the tests say that they were left out.

mod machine;

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Stdio, thread, time::Duration};

use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};

use self::machine::{
    FAR, HERE, INSIDE, Machine, PORT, THERE, becomes, heard, new_key, posts, run, serve, text,
};
use crate::{
    caller::Verdict,
    daemon::{Daemon, Options},
};

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

#[tokio::test]
async fn a_server_with_another_tls_key_than_was_trusted_gets_nothing() {
    in_a_network("key").await;
}

/// What the tests above run in a network of their own.
#[tokio::test]
async fn inside() {
    let Some(story) = std::env::var_os(INSIDE) else {
        return;
    };
    let machine = Machine::start().await;
    match story.to_str().unwrap() {
        "server" => server(&machine).await,
        "name" => name(&machine).await,
        "caller" => caller(&machine).await,
        "key" => key(&machine).await,
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

async fn key(there: &Machine) {
    new_key(there.directory.path());
    there.becomes("tls");
    let mut daemon = Options::alone().start().await;
    let url = format!("https://{THERE}:{PORT}");
    ctl(&daemon, &["servers", "add", &url]).await;
    let seen = until(&daemon, "it is found", |it| it["standing"] == "up").await;
    assert_eq!(seen["admission"], "untrusted");
    let id = seen["id"].as_str().unwrap();
    let path = format!("/lovable/v1/servers/{id}/trust");
    let answer = daemon.caller().post(&path, &json!({})).await;
    assert!(answer.status == 400 && answer.text().contains("--pin"), "{}", answer.text());
    let said = ctl(&daemon, &["servers", "trust", id, "--pin"]).await;
    assert!(said.contains("with the TLS key sha256/"), "{said}");
    is_answered(&daemon).await;
    daemon.kill().await;
    daemon.start_again();
    daemon.until_answering().await;
    let seen = until(&daemon, "it is trusted", |it| it["admission"] == "open").await;
    let pin = seen["trust"]["tls_pin"].as_str().unwrap().to_owned();
    is_answered(&daemon).await;

    new_key(there.directory.path());
    ctl(&daemon, &["servers", "probe"]).await;
    let seen = until(&daemon, "it has changed", |it| it["admission"] == "untrusted").await;
    assert_eq!((&seen["problem"], &seen["trust"]["tls_pin"]), (&json!("changed_key"), &json!(pin)));
    let before = there.posts();
    everything_is_refused(&daemon).await;
    assert_eq!(there.posts(), before);
    drop(daemon);

    // The same from the configuration: a clear fault, and no other way in.
    let config = format!("[[servers]]\nurl = \"{url}\"\ntls = {{ pin = \"{pin}\" }}\n");
    let other = Options::alone().config(&format!("{config}name = \"pinned\"\n")).start().await;
    sleep(Duration::from_secs(2)).await;
    everything_is_refused(&other).await;
    assert_eq!(there.posts(), before);
    drop(other);
    let answer = Options::alone().start().await;
    ctl(&answer, &["servers", "add", &url]).await;
    let seen = until(&answer, "it is found", |it| it["standing"] == "up").await;
    let id = seen["id"].as_str().unwrap();
    ctl(&answer, &["servers", "trust", id, "--pin"]).await;
    let seen = until(&answer, "it is pinned", |it| it["trust"]["tls_pin"].is_string()).await;
    let right = seen["trust"]["tls_pin"].as_str().unwrap();
    assert_ne!(right, pin);
    drop(answer);
    let pinned = Options::alone().config(&config.replace(&pin, right)).start().await;
    until(&pinned, "it is up", |it| it["standing"] == "up").await;
    is_answered(&pinned).await;
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
