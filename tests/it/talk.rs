//! `lovablectl chat`, on a terminal and with a pipe.

use std::{fs, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
    terminal::Terminal,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn word(text: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}}}}]}}\n\n",
        json!(text)
    )
}

fn end() -> String {
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
     data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n"
        .to_owned()
}

/// A server that counts its answers, is endless when asked for something endless, and
/// fails when asked to.
async fn server() -> (Daemon, Scripted) {
    let server = Scripted::start(|post, mut line| async move {
        let asked: Value = serde_json::from_str(&post.body).unwrap();
        let last = asked["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        if last == "fail" {
            line.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 30\r\nconnection: close\r\n\r\n{\"error\":{\"message\":\"no idea\"}}").await;
            return;
        }
        line.say(format!("{STREAM}{}", word(&format!("answer {} ", post.number)))).await;
        if last == "endless" {
            line.until_left().await;
        } else {
            line.say(format!("{}{}", word("done"), end())).await;
        }
    })
    .await;
    let daemon = Options::alone().server(server.endpoint(), "a", 0).start().await;
    (daemon, server)
}

fn chat(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lovablectl"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("NO_COLOR", "1");
    command.arg("--socket").arg(daemon.socket()).arg("chat").args(args).kill_on_drop(true);
    command
}

/// The messages of a request, as `role: text`.
fn messages(server: &Scripted, number: usize) -> Vec<String> {
    let body: Value = serde_json::from_str(&server.posts()[number - 1].body).unwrap();
    let messages = body["messages"].as_array().unwrap().iter();
    messages
        .map(|it| format!("{}: {}", it["role"].as_str().unwrap(), it["content"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_conversation_goes_on_until_ctrl_d() {
    let (daemon, server) = server().await;
    let mut terminal = Terminal::start(&chat(&daemon, &["-m", "m", "-s", "be brief"]));
    terminal.answers("> ", "hello\r").await;
    terminal.until("answer 1 done").await;
    terminal.until("m on a · 2 tokens").await;
    terminal.answers("> ", "and \\\r").await;
    terminal.answers(". ", "more\r").await;
    terminal.until("answer 2 done").await;
    terminal.answers("> ", "\"\"\"\r").await;
    terminal.answers(". ", "a\r").await;
    terminal.answers(". ", "b\"\"\"\r").await;
    terminal.until("answer 3 done").await;
    terminal.answers("> ", "\x1b[200~pasted\nlines\x1b[201~\r").await;
    terminal.until("answer 4 done").await;
    terminal.answers("> ", "\x04").await;
    assert_eq!(terminal.ended().await.code(), Some(0));
    assert_eq!(
        messages(&server, 4),
        [
            "system: be brief",
            "user: hello",
            "assistant: answer 1 done",
            "user: and \nmore",
            "assistant: answer 2 done",
            "user: a\nb",
            "assistant: answer 3 done",
            "user: pasted\nlines",
        ]
    );
}

#[tokio::test]
async fn ctrl_c_stops_the_answer_and_not_the_program() {
    let (daemon, server) = server().await;
    let mut terminal = Terminal::start(&chat(&daemon, &["-m", "m"]));
    terminal.answers("> ", "endless\r").await;
    terminal.answers("answer 1", "\x03").await;
    server.until_left().await;
    terminal.until("stopped").await;
    terminal.answers("> ", "\x03").await;
    terminal.until("Ctrl-D or /quit leaves").await;
    terminal.answers("> ", "hello\r").await;
    terminal.until("answer 2 done").await;
    terminal.answers("> ", "/quit\r").await;
    assert_eq!(terminal.ended().await.code(), Some(0));
    assert_eq!(messages(&server, 2), ["user: endless", "assistant: answer 1 ", "user: hello"]);
}

#[tokio::test]
async fn commands_do_what_they_say() {
    let (daemon, server) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("talk.json");
    let save = format!("/save {}\r", file.display());
    let mut terminal = Terminal::start(&chat(&daemon, &[]));
    terminal.answers("> ", "/mod\t\r").await;
    terminal.until("* auto").await;
    terminal.until("  m\r\n").await;
    terminal.answers("> ", "/model m\r").await;
    terminal.until("asking m from now on").await;
    terminal.answers("> ", "/system be kind\r").await;
    terminal.until("told so").await;
    terminal.answers("> ", "/retry\r").await;
    terminal.until("nothing was asked yet").await;
    terminal.answers("> ", "hello\r").await;
    terminal.until("answer 1 done").await;
    terminal.answers("> ", "/retry\r").await;
    terminal.until("answer 2 done").await;
    terminal.answers("> ", &save).await;
    terminal.until("the conversation is in").await;
    terminal.answers("> ", &save).await;
    terminal.until("Write over it?").await;
    terminal.answers("y or n> ", "n\r").await;
    terminal.until("it stays as it is").await;
    terminal.answers("> ", "/savings\r").await;
    terminal.until("there is no /savings").await;
    terminal.answers("> ", "/help\r").await;
    terminal.until("/retry").await;
    terminal.answers("> ", "/clear\r").await;
    terminal.until("forgotten").await;
    terminal.answers("> ", "fail\r").await;
    terminal.until("no idea").await;
    terminal.answers("> ", "hello again\r").await;
    terminal.until("answer 4 done").await;
    terminal.answers("> ", "\x04").await;
    assert_eq!(terminal.ended().await.code(), Some(0));
    assert_eq!(messages(&server, 2), ["system: be kind", "user: hello"]);
    assert_eq!(messages(&server, 4), ["system: be kind", "user: hello again"]);
    let saved: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(saved["messages"][2]["content"], "answer 2 done");
}

#[tokio::test]
async fn each_line_of_a_pipe_is_a_turn() {
    let (daemon, server) = server().await;
    let mut command = chat(&daemon, &["-m", "m"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = b"one\n\nfail\ntwo \\\nlines\n/nonsense\n\"\"\"\nthree\n";
    child.stdin.take().unwrap().write_all(lines).await.unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "answer 1 done\nanswer 3 done\nanswer 4 done\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(messages(&server, 4).last().unwrap(), "user: three");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("m on a") && talk.contains("no idea") && talk.contains("/nonsense"), "{talk}");
    assert!(!talk.contains("> "), "{talk}");
}

#[tokio::test]
async fn nothing_that_was_said_is_on_the_disk() {
    let (daemon, _server) = server().await;
    let home = tempfile::tempdir().unwrap();
    let mut command = chat(&daemon, &["-m", "m"]);
    command.env("HOME", home.path());
    let mut terminal = Terminal::start(&command);
    terminal.answers("> ", "secret\r").await;
    terminal.until("done").await;
    terminal.answers("> ", "\x1b[A").await;
    terminal.until("secret").await;
    terminal.types("\x03");
    terminal.answers("> ", "\x04").await;
    terminal.ended().await;
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
