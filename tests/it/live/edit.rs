//! Single edits, and what they change.

use std::{fs, os::unix::fs::PermissionsExt, os::unix::fs::symlink};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::*;
use crate::caller::Verdict;

async fn verdict(daemon: &Daemon, model: &str) -> Verdict {
    daemon.caller().chat(model, false).await.unwrap().verdict()
}

#[tokio::test]
async fn names_and_patience_are_others_after_an_edit() {
    let server = server("sim").await;
    let daemon = with(&entry(&server, "name = \"a\"")).await;
    assert!(matches!(verdict(&daemon, "talk").await, Verdict::Refused(404)));
    write(&daemon, &format!("{}[aliases]\ntalk = \"sim\"\n[patience]\ngap = \"7s\"", entry(&server, "")));
    until_setting(&daemon, "patience.gap", json!("7s")).await;
    assert_eq!(setting(&daemon, "aliases.talk").await, Some(json!("sim")));
    assert!(matches!(verdict(&daemon, "talk").await, Verdict::Whole(_)));
    replace(&daemon, &format!("{}[limits]\nbody = \"1KiB\"", entry(&server, "")));
    until_setting(&daemon, "limits.body", json!("1KiB")).await;
    assert!(matches!(verdict(&daemon, "talk").await, Verdict::Refused(404)));
    let long = crate::caller::chat("sim", false, &"x".repeat(2000));
    assert_eq!(daemon.caller().post("/v1/chat/completions", &long).await.status, 413);
    // An empty file is a configuration too.
    fs::write(daemon.configuration(), "").unwrap();
    until_setting(&daemon, "limits.body", json!("64MiB")).await;
    assert_eq!(reasons(&daemon).await.iter().filter(|it| it.contains("configuration")).count(), 0);
}

#[tokio::test]
async fn servers_come_change_and_lose_their_trust_with_their_entries() {
    let (first, second) = (server("one").await, server("two").await);
    let daemon = with(&entry(&first, "name = \"a\"")).await;
    let both = |more: &str| format!("{}{}", entry(&first, "name = \"a\""), entry(&second, more));
    write(&daemon, &both("name = \"b\"\npriority = 3\nlimit = 2"));
    until("b is up", &daemon, async || shown(&daemon, "b").await.is_some_and(|it| it["standing"] == "up"))
        .await;
    assert!(matches!(verdict(&daemon, "two").await, Verdict::Whole(_)));
    let id = shown(&daemon, "b").await.unwrap()["id"].clone();
    write(&daemon, &both("name = \"c\"\nlimit = 5\nzone = \"lan\""));
    until("b is c", &daemon, async || shown(&daemon, "c").await.is_some()).await;
    let server = shown(&daemon, "c").await.unwrap();
    assert_eq!((&server["id"], &server["limit"], &server["zone"]), (&id, &json!(5), &json!("lan")));
    write(&daemon, &both("name = \"c\"\nenabled = false"));
    until("c is off", &daemon, async || shown(&daemon, "c").await.is_some_and(|it| it["admission"] == "off"))
        .await;
    assert!(matches!(verdict(&daemon, "two").await, Verdict::Refused(_)));
    write(&daemon, &both("name = \"c\""));
    until("c is open", &daemon, async || {
        shown(&daemon, "c").await.is_some_and(|it| it["admission"] == "open")
    })
    .await;
    assert!(matches!(verdict(&daemon, "two").await, Verdict::Whole(_)));
    let before = second.counts().received;
    write(&daemon, &entry(&first, "name = \"a\""));
    let id = id.as_str().unwrap().to_owned();
    until("nobody trusts it", &daemon, async || {
        shown(&daemon, &id).await.is_some_and(|it| it["admission"] == "untrusted")
    })
    .await;
    assert!(matches!(verdict(&daemon, "two").await, Verdict::Refused(_)));
    assert_eq!(second.counts().received, before, "no prompt has gone there");
    assert!(matches!(verdict(&daemon, "one").await, Verdict::Whole(_)));
}

#[tokio::test]
async fn a_key_that_is_replaced_is_shown_at_once() {
    let script = Script { key: Some("new".to_owned()), ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    let write_key = |text: &str| {
        fs::write(&key, text).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write_key("old");
    let daemon = with(&entry(&server, &format!("name = \"a\"\nkey_file = \"{}\"", key.display()))).await;
    until("it wants another", &daemon, async || {
        shown(&daemon, "a").await.is_some_and(|it| it["problem"] == "needs_key")
    })
    .await;
    write_key("new");
    until("it has it", &daemon, async || matches!(verdict(&daemon, "sim").await, Verdict::Whole(_))).await;
    // One that anybody may read is refused, and the last good one stays.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    until_reason(&daemon, &["broken", "others may read or change it"]).await;
    assert!(matches!(verdict(&daemon, "sim").await, Verdict::Whole(_)));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    until("it is mended", &daemon, async || reasons(&daemon).await.is_empty()).await;
}

#[tokio::test]
async fn what_is_broken_changes_nothing_and_is_told_until_it_is_mended() {
    let server = server("sim").await;
    let lines = |more: &str| format!("{}[aliases]\ntalk = \"sim\"\n{more}", entry(&server, ""));
    let daemon = with(&lines("")).await;
    for write in [write, replace] {
        write(&daemon, &lines("[patience]\n  gapp = \"7s\""));
        let line = configuration(&lines("")).lines().count() + 1;
        let at =
            format!("config.toml:{line}:3: unknown setting `patience.gapp`; did you mean `patience.gap`?");
        until_reason(&daemon, &["broken", &at]).await;
        let status = daemon.caller().get("/lovable/v1/status").await.json();
        assert_eq!((&status["health"], &status["ready"]), (&json!("degraded"), &json!(true)));
        assert!(matches!(verdict(&daemon, "talk").await, Verdict::Whole(_)));
        assert_eq!(setting(&daemon, "patience.gap").await, Some(json!("30s")));
        write(&daemon, &lines(""));
        until("it is mended", &daemon, async || reasons(&daemon).await.is_empty()).await;
    }
    let said = daemon.log();
    assert_eq!(said.matches("the configuration is broken").count(), 2, "{said}");
    assert_eq!(said.matches("the configuration is mended").count(), 2, "{said}");
}

#[tokio::test]
async fn a_file_behind_links_is_read_when_they_are_pointed_elsewhere() {
    let server = server("sim").await;
    let daemon = with(&entry(&server, "")).await;
    let path = daemon.configuration();
    let at = |name: &str| path.with_file_name(name);
    for gap in ["1s", "2s"] {
        let lines = format!("{}[patience]\ngap = \"{gap}\"", entry(&server, ""));
        fs::create_dir(at(gap)).unwrap();
        fs::write(at(gap).join("config.toml"), configuration(&lines)).unwrap();
    }
    symlink("1s", at("data")).unwrap();
    symlink("data/config.toml", at("link")).unwrap();
    fs::rename(at("link"), &path).unwrap();
    until_setting(&daemon, "patience.gap", json!("1s")).await;
    symlink("2s", at("next")).unwrap();
    fs::rename(at("next"), at("data")).unwrap();
    until_setting(&daemon, "patience.gap", json!("2s")).await;
}

#[tokio::test]
async fn a_signal_has_it_read_and_what_needs_a_restart_is_named() {
    let server = server("sim").await;
    let daemon = with(&entry(&server, "")).await;
    write(
        &daemon,
        &format!("{}[listen]\naddress = \"127.0.0.1:1\"\n[log]\nformat = \"json\"", entry(&server, "")),
    );
    let pid = Pid::from_raw(daemon.pid() as i32).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until_reason(&daemon, &["takes effect after a restart: [listen] address = \"127.0.0.1:1\""]).await;
    until_reason(&daemon, &["takes effect after a restart: [log] format = \"json\""]).await;
    assert_eq!(setting(&daemon, "listen.address").await, Some(json!(null)));
    assert_eq!(setting(&daemon, "log.format").await, Some(json!("text")));
    // It is in force, and in the status, a moment before it is in the log.
    let is_logged = async || {
        let said = daemon.log();
        said.contains("WARN") && said.contains("takes effect after a restart: [log] format")
    };
    until("it is logged", &daemon, is_logged).await;
    write(&daemon, &entry(&server, ""));
    until("nothing waits", &daemon, async || reasons(&daemon).await.is_empty()).await;
}
