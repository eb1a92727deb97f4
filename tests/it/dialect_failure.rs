//! Every failure in every language: before the answer has begun, and after.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use lovable::{
    dialect::{
        Door, Verdict,
        frames::{Cutter, FrameData},
        own,
    },
    fault::{Cause, Failure, Fault, Stage, Tried, Words},
};
use serde_json::Value;

use crate::dialect_example::operation;

fn words(body: &str) -> Failure {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Failure::Relayed(Words { status: 400, content_type: None, body })
}

/// One of each, so that a new one must be thought of here.
fn every_failure() -> Vec<Failure> {
    let tried = vec![Tried { server: "a".to_owned(), fault: Fault::new(Stage::Head, Cause::Reset) }];
    let all = vec![
        Failure::BadRequest("the body is \"bad\"\n".to_owned()),
        Failure::Unsupported("`x` cannot be said".to_owned()),
        Failure::UnknownRoute("/x".to_owned()),
        Failure::WrongMethod { allow: "GET" },
        Failure::UnknownModel { model: "m".to_owned(), nearest: vec!["n".to_owned()] },
        Failure::NotFound("no such request".to_owned()),
        Failure::BodyTooLarge { limit: 5 },
        Failure::SlowCaller,
        Failure::Forbidden("this socket is another user's".to_owned()),
        Failure::WrongKey("the key is not the one of this bridge".to_owned()),
        Failure::Loop,
        words("{\n  \"error\": {\"message\": \"OpenAI's shape\", \"code\": 400}\n}"),
        words(
            "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Anthropic's shape\"}}",
        ),
        words("{\"error\":\"Ollama's shape\"}"),
        words("{\"detail\":[{\"msg\":\"FastAPI's shape\",\"loc\":[\"body\"]}]}"),
        words("{\"object\":\"error\",\"message\":\"an old vLLM's shape\"}"),
        words("bare words\r\n\r\ndata: [DONE]\n\n"),
        words(""),
        Failure::Busy { retry_after: Duration::from_secs(1) },
        Failure::Exhausted(tried.clone()),
        Failure::NoServer("no server is up".to_owned()),
        Failure::OutOfTime { waited: Duration::from_secs(1), tried },
        Failure::Internal,
    ];
    for failure in &all {
        match failure {
            Failure::BadRequest(_)
            | Failure::Unsupported(_)
            | Failure::UnknownRoute(_)
            | Failure::WrongMethod { .. }
            | Failure::UnknownModel { .. }
            | Failure::NotFound(_)
            | Failure::BodyTooLarge { .. }
            | Failure::SlowCaller
            | Failure::Forbidden(_)
            | Failure::WrongKey(_)
            | Failure::Loop
            | Failure::Relayed(_)
            | Failure::Busy { .. }
            | Failure::Exhausted(_)
            | Failure::NoServer(_)
            | Failure::OutOfTime { .. }
            | Failure::Internal => {}
        }
    }
    all
}

/// The sentence that a client of this language shows.
fn sentence(door: Door, body: &Value) -> Option<&str> {
    match door.dialect().id() {
        "ollama" => body["error"].as_str(),
        "anthropic" => body["error"]["message"].as_str().filter(|_| body["type"] == "error"),
        _ => body["error"]["message"].as_str(),
    }
}

#[test]
fn every_failure_can_be_told_in_every_dialect_before_and_after_the_answer_began() {
    let mut shown = String::new();
    for door in [Door::OpenAiChat, Door::Responses, Door::Messages, Door::OllamaChat] {
        let dialect = door.dialect();
        writeln!(shown, "# {}", dialect.id()).unwrap();
        for failure in every_failure() {
            let before = dialect.refuse(&failure, "r1");
            let before: Value = serde_json::from_slice(&before).unwrap();
            let said = sentence(door, &before).unwrap_or_else(|| panic!("{door}: {before}"));
            assert!(!said.is_empty(), "{door}: {failure:?}");
            writeln!(shown, "{} {before}", failure.status()).unwrap();

            for frames in [0, 7] {
                let after = dialect.break_off(&failure, "r1", frames);
                let verdicts = heard(door, &after);
                assert!(verdicts.contains(&Verdict::Error), "{door}: {after:?}");
                assert!(!verdicts.contains(&Verdict::Done), "{door}: {after:?}");
                assert!(!verdicts.contains(&Verdict::Unreadable), "{door}: {after:?}");
                assert!(!verdicts.contains(&Verdict::Content), "no failure is dressed up as an answer");
                if frames == 7 {
                    writeln!(
                        shown,
                        "    {}",
                        String::from_utf8_lossy(&after).trim_end().replace('\n', "\n    ")
                    )
                    .unwrap();
                }
            }
        }
    }
    insta::assert_snapshot!("failures", shown);
}

/// What our own reader makes of it; it must not take it for a whole answer.
fn heard(door: Door, bytes: &Bytes) -> Vec<Verdict> {
    let mut cutter = Cutter::of(door.dialect().framing(), 1 << 20);
    cutter.push(bytes.clone());
    let mut reader = door.dialect().reader(door, operation(door));
    let mut verdicts = Vec::new();
    for frame in cutter.by_ref() {
        match frame.unwrap().data {
            FrameData::Event(data) => verdicts.push(reader.read(&data, None).verdict),
            FrameData::Comment => {}
            FrameData::Broken => panic!("{door}: {bytes:?}"),
        }
    }
    assert_eq!(cutter.rest(), 0, "{door}: {bytes:?}");
    assert!(reader.end(true).is_err(), "{door}: {bytes:?}");
    verdicts
}

#[test]
fn every_failure_can_be_told_on_our_own_routes() {
    for failure in every_failure() {
        let body: Value = serde_json::from_slice(&own::refuse(&failure, "r1")).unwrap();
        assert_eq!(body["error"]["request_id"], "r1");
        assert_eq!(body["error"]["code"], failure.code());
        assert!(body["error"]["message"].as_str().is_some_and(|it| !it.is_empty()));
    }
}
