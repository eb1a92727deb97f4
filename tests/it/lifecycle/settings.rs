//! Settings: checked, and shown with where they came from.

use std::fs;

use serde_json::Value;

use crate::lifecycle::{Home, check, output};

#[tokio::test]
async fn a_configuration_is_checked_without_starting_anything() {
    let home = Home::new();
    check(&output(home.lovabled(&["--check-config"])).await, 0, &["config.toml is fine"]);
    for (lines, says) in [
        ("[patienc]\ngap = \"1s\"\n", &["patienc", "patience", "config.toml:"][..]),
        ("[patience]\ngapp = \"1s\"\n", &["gapp", "gap", "config.toml:"]),
        ("[[servers]]\nurl = \"http://a\"\nprio = 1\n", &["prio", "priority"]),
        ("[patience]\ngap = 5\n", &["patience.gap"]),
        ("[listen]\naddress = \"0.0.0.0:80\"\n", &["listen.address"]),
        ("[listen\n", &["config.toml"]),
        // All of them at once.
        ("[limits]\nbody = \"x\"\nheldd = \"1MiB\"\n", &["limits.body", "heldd", "held"]),
    ] {
        home.configure(lines);
        check(&output(home.lovabled(&["--check-config"])).await, 2, says);
        check(&output(home.lovabled(&[])).await, 2, says);
        check(&home.ctl(&["config", "check"]).await, 2, says);
    }
    assert!(!home.socket().exists() && !home.state().exists());

    fs::remove_file(home.at("config/lovable/config.toml")).unwrap();
    check(&output(home.lovabled(&["--check-config"])).await, 0, &["the defaults hold"]);
    check(&output(home.lovabled(&["--check-config", "--config", "none"])).await, 2, &["none"]);
    let mut command = home.lovabled(&["--check-config"]);
    command.env("LOVABLE_LOG", "lovable=loud");
    check(&output(command).await, 2, &["no log filter"]);
}

#[tokio::test]
async fn every_setting_shows_where_it_came_from() {
    let home = Home::new();
    home.configure("[patience]\ngap = \"7s\"\n");
    let mut command = home.lovabled(&["--listen", "127.0.0.1:0"]);
    command.env("LOVABLE_TRACKING", "off").env("LOVABLE_LISTEN", "127.0.0.1:1");
    let running = home.spawn(command);
    let running = home.answering(running, &home.socket()).await;
    let shown = home.ctl(&["config", "show", "--json"]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    for (key, from, at) in [
        ("listen.address", "flag", "--listen"),
        ("stats.tracking", "environment", "LOVABLE_TRACKING"),
        ("patience.gap", "file", "config.toml:"),
        ("patience.load", "default", ""),
        ("socket", "default", ""),
    ] {
        let settings = shown["settings"].as_array().unwrap();
        let it = settings.iter().find(|it| it["key"] == key).unwrap_or_else(|| panic!("no {key}: {shown:#}"));
        assert_eq!(it["from"], from, "{it}");
        assert!(it["at"].as_str().unwrap_or_default().contains(at), "{it}");
    }
    check(&home.ctl(&["config", "show"]).await, 0, &["patience.gap", "7s", "--listen", "default"]);
    let path = home.at("config/lovable/config.toml").display().to_string();
    check(&home.ctl(&["config", "path"]).await, 0, &[&path]);
    running.stop().await;
    // Without a daemon, what it would start with.
    check(&home.ctl(&["config", "show"]).await, 0, &["not running", "patience.gap", "7s"]);
}

#[tokio::test]
async fn a_demo_shows_three_servers_says_where_it_keeps_things_and_leaves_nothing() {
    let home = Home::new();
    fs::create_dir(home.at("tmp")).unwrap();
    let mut command = home.lovabled(&["--demo"]);
    // Whatever the environment says.
    command.env("TMPDIR", home.at("tmp")).env("LOVABLE_STATE_DIR", home.at("mine"));
    let running = home.spawn(command);
    let running = home.answering(running, &home.socket()).await;
    check(&home.ctl(&["status", "--wait", "20s"]).await, 0, &["is ready"]);
    check(&home.ctl(&["generate", "hello"]).await, 0, &["simulated"]);
    let shown = home.ctl(&["config", "show", "--json"]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let state = shown["settings"].as_array().unwrap().iter().find(|it| it["key"] == "state_dir").unwrap();
    assert_eq!(state["value"], home.status().await["store"]["path"]);
    assert_eq!(state["at"], "--demo");
    assert!(state["value"].as_str().unwrap().starts_with(home.at("tmp").to_str().unwrap()), "{state}");
    running.stop().await;
    assert_eq!(fs::read_dir(home.at("tmp")).unwrap().count(), 0);
    assert!(!home.state().exists() && !home.at("mine").exists());
}
