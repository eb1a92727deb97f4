//! Whose listeners are used. Only root can make another user's.

use std::net::TcpListener;

use rustix::fs::{Uid, fchown};
use serde_json::json;

use super::{
    is_root,
    listener::{Listener, openai},
    looking, until_said, until_up,
};
use crate::{caller::Verdict, daemon::Options};

/// The kernel tells the owner of a socket by its inode, and root may give that away.
fn owned_by(uid: u32) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fchown(&listener, Some(Uid::from_raw(uid)), None).unwrap();
    listener
}

#[tokio::test]
async fn listeners_of_other_people_are_shown_and_not_used() {
    if !is_root() {
        return;
    }
    let daemon = looking().start().await;
    for (uid, admission) in [
        (4242, "untrusted"),
        (65534, "untrusted"),
        (1000, "untrusted"),
        (0, "open"),
        (33, "open"),
        (61184, "open"),
    ] {
        let model = format!("of-{uid}");
        let server = Listener::on(owned_by(uid), openai(&model)).of(&daemon);
        let seen = until_up(&daemon, &server.url()).await;
        assert_eq!(seen["admission"], admission, "{uid}");
        let answer = daemon.caller().chat(&model, false).await.unwrap();
        match admission {
            "open" => assert!(matches!(answer.verdict(), Verdict::Whole(1)), "{uid} {}", answer.text()),
            _ => assert!(matches!(answer.verdict(), Verdict::Refused(404 | 503)), "{uid} {}", answer.text()),
        }
        let used = server.heard().iter().any(|it| it.line().starts_with("POST"));
        assert_eq!(used, admission == "open", "{uid}");
    }
}

#[tokio::test]
async fn whom_the_configuration_names_is_used_whoever_it_is() {
    if !is_root() {
        return;
    }
    let trusted = Listener::on(owned_by(4242), openai("trusted"));
    let named = Listener::on(owned_by(4242), openai("named"));
    let config = format!("[[servers]]\nurl = \"{}\"\n", named.url());
    let trust = format!("trust = [\"127.0.0.1:{}\"]\n", trusted.port());
    let daemon = looking().discovery(&trust).config(&config).start().await;
    for (server, model) in [(&trusted, "trusted"), (&named, "named")] {
        assert_eq!(until_up(&daemon, &server.url()).await["admission"], "open");
        let answer = daemon.caller().chat(model, false).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Whole(1)), "{}", answer.text());
    }
}

#[tokio::test]
async fn adding_what_another_user_runs_does_not_make_it_trusted_with_or_without_the_table() {
    if !is_root() {
        return;
    }
    let server = Listener::on(owned_by(4242), openai("added"));
    for options in [looking(), Options::alone()] {
        let daemon = options.start().await;
        daemon.ctl(&["servers", "add", &server.url()]).await;
        let seen = until_up(&daemon, &server.url()).await;
        assert_eq!(seen["admission"], "untrusted");
        assert!(seen["found_by"].as_array().unwrap().contains(&json!("added")));
    }
}

#[tokio::test]
async fn what_we_run_ourselves_is_open_when_it_is_added_without_the_table() {
    let server = Listener::start(openai("ours"));
    let mut daemon = Options::alone().start().await;
    daemon.ctl(&["servers", "add", &server.url()]).await;
    for _ in 0..2 {
        assert_eq!(until_up(&daemon, &server.url()).await["admission"], "open");
        daemon.kill().await;
        daemon.start_again();
        daemon.until_answering().await;
    }
}

#[tokio::test]
async fn a_rule_that_is_taken_back_ends_trust_at_once_and_one_that_is_made_begins_it() {
    if !is_root() {
        return;
    }
    let server = Listener::on(owned_by(4242), openai("ruled"));
    let daemon = looking().start().await;
    let posts = || server.heard().iter().filter(|it| it.line().starts_with("POST")).count();
    assert_eq!(until_up(&daemon, &server.url()).await["admission"], "untrusted");
    for _ in 0..3 {
        let rule = format!("[discovery]\ntrust = [\"127.0.0.1:{}\"]\n", server.port());
        std::fs::write(daemon.configuration(), rule).unwrap();
        super::until(&daemon, &server.url(), "is open", |it| it["admission"] == "open").await;
        let before = posts();
        let answer = daemon.caller().chat("ruled", false).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Whole(1)), "{}", answer.text());
        assert_eq!(posts(), before + 1);
        std::fs::write(daemon.configuration(), "").unwrap();
        super::until(&daemon, &server.url(), "is untrusted", |it| it["admission"] == "untrusted").await;
        let answer = daemon.caller().chat("ruled", false).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Refused(404 | 503)), "{}", answer.text());
        assert_eq!(posts(), before + 1);
    }
}

#[tokio::test]
async fn a_change_of_owner_asks_again() {
    if !is_root() {
        return;
    }
    let daemon = looking().start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let again = listener.try_clone().unwrap();
    let server = Listener::on(listener, openai("sold"));
    assert_eq!(until_up(&daemon, &server.url()).await["admission"], "open");
    fchown(&again, Some(Uid::from_raw(4242)), None).unwrap();
    super::until(&daemon, &server.url(), "is untrusted", |it| it["admission"] == "untrusted").await;
    until_said(&daemon, &server.url(), "recognised").await;
}
