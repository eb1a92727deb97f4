//! `lovablectl doctor` on faults that are really there.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use lovable::simulate::{Offer, Script, Shape, Simulated};
use serde_json::Value;
use tokio::net::UnixListener;

use crate::lifecycle::{Home, LOVABLECTL, check, entry, is_root, output, until};

/// What the checks found, by their names; asserts that the exit code agrees.
pub(super) async fn examine(home: &Home, env: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut found = examine_all(home, env).await;
    // Whether the machine that runs the tests has multicast, and who else runs there, is not
    // for us to say.
    found.retain(|it| it.0 != "multicast" && !it.1.contains("/tmp/lovable-"));
    found
}

/// The same, with what depends on the machine.
pub(super) async fn examine_all(home: &Home, env: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut command = home.command(LOVABLECTL);
    command.args(["--json", "doctor"]).envs(env.iter().copied());
    let said = output(command).await;
    let report: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|it| panic!("{it}: {said:?}"));
    assert_eq!(said.status.code(), Some(i32::from(report["ok"] != true)), "{report:#}");
    let mut found = Vec::new();
    for it in report["checks"].as_array().unwrap() {
        assert_eq!(it["ok"] == true, it["findings"].as_array().unwrap().is_empty());
        for finding in it["findings"].as_array().unwrap() {
            assert!(!finding["fix"].as_str().unwrap().is_empty(), "{finding}");
            found.push((it["check"].as_str().unwrap().to_owned(), finding.to_string()));
        }
    }
    found
}

#[track_caller]
pub(super) fn has(found: &[(String, String)], id: &str, words: &[&str]) {
    let of_it: Vec<_> = found.iter().filter(|it| it.0 == id).map(|it| it.1.as_str()).collect();
    assert!(!of_it.is_empty(), "{id} finds nothing: {found:#?}");
    for word in words {
        assert!(of_it.iter().any(|it| it.contains(word)), "no {word:?} in {of_it:#?}");
    }
}

async fn server(shape: Shape, script: Script) -> Simulated {
    Simulated::start(shape, script).await.unwrap()
}

#[tokio::test]
async fn with_a_daemon_and_a_server_nothing_is_wrong() {
    let server = server(Shape::Vllm, Script::default()).await;
    let home = Home::with(&server);
    let running = home.start(&[]).await;
    home.ready().await;
    assert_eq!(examine(&home, &[]).await, []);
    running.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_or_left_a_socket_or_hangs() {
    let home = Home::new();
    has(&examine(&home, &[]).await, "daemon", &["not running", "lovablectl service install"]);
    let running = home.start(&[]).await;
    running.kill().await;
    let found = examine(&home, &[]).await;
    has(&found, "daemon", &["not running"]);
    has(&found, "stale_socket", &["nobody listens", "rm "]);
    fs::remove_file(home.socket()).unwrap();
    let _listener = UnixListener::bind(home.socket()).unwrap();
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    has(&examine(&home, &[]).await, "daemon", &["says nothing"]);
}

#[tokio::test]
async fn a_socket_that_others_may_open_and_a_second_daemon() {
    let home = Home::new();
    let running = home.start(&[]).await;
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    has(&examine(&home, &[]).await, "socket_access", &["0666", "chmod 600"]);
    fs::set_permissions(home.socket(), fs::Permissions::from_mode(0o600)).unwrap();
    if is_root() {
        chown(home.socket(), Some(4242), None).unwrap();
        has(&examine(&home, &[]).await, "socket_access", &["belongs to user 4242"]);
        chown(home.socket(), Some(0), None).unwrap();
    }
    let (other, state) = (home.at("other.sock"), home.at("other"));
    let args = ["--socket", other.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let second = home.spawn(home.lovabled(&args));
    let second = home.answering(second, &other).await;
    let found = examine(&home, &[("LOVABLE_SOCKET", other.to_str().unwrap())]).await;
    has(&found, "two_daemons", &["2 daemons", "other.sock"]);
    second.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_configuration_that_became_wrong() {
    let home = Home::new();
    let running = home.start(&[]).await;
    home.configure("[limitz]\n");
    has(&examine(&home, &[]).await, "configuration", &["limitz", "limits", "config edit"]);
    running.stop().await;
}

#[tokio::test]
async fn no_server_though_one_is_installed() {
    let home = Home::new();
    let running = home.start(&[]).await;
    let bin = home.at("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("ollama"), "").unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let found = examine(&home, &[("PATH", &path)]).await;
    has(&found, "no_server", &["Ollama is installed", "ollama serve"]);
    running.stop().await;
}

#[tokio::test]
async fn what_servers_lack() {
    let key = server(Shape::Vllm, Script { key: Some("secret".to_owned()), ..Script::default() }).await;
    let narrow = server(Shape::LlamaCpp, Script { slots: 1, ..Script::default() }).await;
    let home = Home::new();
    home.configure(&(entry(&key) + &entry(&narrow)));
    let running = home.start(&[]).await;
    until("both are known", async || {
        let servers = home.caller().get("/lovable/v1/servers").await.json();
        (servers["servers"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let found = examine(&home, &[]).await;
    has(&found, "needs_key", &["key_env"]);
    has(&found, "one_at_a_time", &["--parallel"]);
    running.stop().await;
}

#[tokio::test]
async fn a_variable_of_this_shell_that_the_daemon_does_not_see() {
    let home = Home::new();
    let running = home.start(&[]).await;
    let found = examine(&home, &[("OLLAMA_HOST", "127.0.0.1:4711"), ("OPENAI_API_KEY", "sk-secret")]).await;
    has(&found, "variables", &["OLLAMA_HOST", "OPENAI_API_KEY"]);
    assert!(!format!("{found:?}").contains("sk-secret"), "names are told, values are not");
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_database_and_a_full_disk() {
    let home = Home::new();
    fs::create_dir_all(home.state().join("rollups.damaged-1700000000")).unwrap();
    let running = home.start(&[]).await;
    has(&examine(&home, &[]).await, "moved_aside", &["rollups.damaged-1700000000", "rm -r"]);
    running.stop().await;
    if !is_root() {
        return;
    }
    fs::create_dir(home.at("full")).unwrap();
    let mut command = home.command("unshare");
    let script = "mount -t tmpfs -o size=1m none full && XDG_STATE_HOME=$PWD/full \"$0\" --json doctor";
    let said = output({
        command.args(["--mount", "sh", "-c", script, LOVABLECTL]);
        command
    })
    .await;
    check(&said, 1, &["the disk is full", "--state-dir"]);
}

#[tokio::test]
async fn a_bundle_says_what_helps_and_nothing_private() {
    let model = Offer::named("private-model-of-ada");
    let server = server(Shape::Vllm, Script { models: vec![model], ..Script::default() }).await;
    let home = Home::new();
    let named =
        entry(&server) + "name = \"adas-secret-box\"\n[aliases]\n\"adas-alias\" = \"private-model-of-ada\"\n";
    home.configure(&named);
    let running = home.start(&[]).await;
    home.ready().await;
    let prompt = home.caller().chat("private-model-of-ada", false).await.unwrap();
    assert_eq!(prompt.status, 200);
    let mut command = home.command(LOVABLECTL);
    command.args(["doctor", "--bundle", "bundle.json"]).env("OPENAI_API_KEY", "sk-very-secret");
    command.env("USER", "adalovelace");
    check(&output(command).await, 1, &["wrote bundle.json", "look through it"]);
    let text = fs::read_to_string(home.at("bundle.json")).unwrap();
    let private = home.at("");
    for secret in [
        "private-model",
        "adas-secret-box",
        "adas-alias",
        "sk-very-secret",
        "adalovelace",
        private.to_str().unwrap(),
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["servers"][0]["kind"], "vllm", "{text}");
    assert_eq!(told["daemon"]["requests"]["delivered"], 1, "{text}");
    assert_eq!(crate::lifecycle::mode(&home.at("bundle.json")), 0o600);
    running.stop().await;
}
