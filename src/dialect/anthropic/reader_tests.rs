use super::*;
use crate::dialect::Reader as _;

const START: &str = r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"usage":{"input_tokens":4,"output_tokens":1}}}"#;
const TEXT: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
const WORD: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
const CLOSE: &str = r#"{"type":"content_block_stop","index":0}"#;
const FINISH: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

fn verdicts(events: &[&str]) -> Vec<Verdict> {
    let mut reader = Reader::default();
    events.iter().map(|it| reader.read(it.as_bytes(), None).verdict).collect()
}

fn end(events: &[&str], clean: bool) -> Result<(), Cause> {
    let mut reader = Reader::default();
    for event in events {
        reader.read(event.as_bytes(), None);
    }
    reader.end(clean)
}

fn means(events: &[&str]) -> Vec<Event> {
    let mut reader = Reader::default();
    let mut out = Vec::new();
    for event in events {
        reader.read(event.as_bytes(), Some(&mut out));
    }
    out
}

#[test]
fn an_answer_by_the_book() {
    use Verdict::{Content, Done, Finish, Quiet};
    let ping = r#"{"type":"ping"}"#;
    let all = [START, ping, TEXT, WORD, CLOSE, FINISH, STOP];
    assert_eq!(verdicts(&all), [Quiet, Quiet, Quiet, Content, Quiet, Finish, Done]);
    let usage =
        |output| Event::Usage(Usage { input_tokens: Some(4), output_tokens: output, ..Usage::default() });
    let finished = Event::Finished { reason: Reason::Stop, stop: None };
    assert_eq!(means(&all), [usage(None), Event::Text("a".to_owned()), finished, usage(Some(3))]);
}

#[test]
fn whole_is_a_stop_reason_and_then_an_end() {
    let all = [START, TEXT, WORD, CLOSE, FINISH];
    assert_eq!(end(&[&all[..], &[STOP]].concat(), true), Ok(()));
    assert_eq!(end(&[&all[..], &[STOP]].concat(), false), Ok(()));
    assert_eq!(end(&all, true), Ok(()));
    assert_eq!(end(&all, false), Err(Cause::EarlyEnd));
    assert_eq!(end(&[START, TEXT, WORD, CLOSE, STOP], true), Err(Cause::EarlyEnd));
    assert_eq!(end(&[START, TEXT, WORD], true), Err(Cause::EarlyEnd), "Ollama, its runner killed");
    assert_eq!(end(&[START], true), Err(Cause::EarlyEnd));
    assert_eq!(end(&[START, FINISH, STOP], true), Ok(()), "a model may say nothing");
    assert_eq!(end(&[], true), Err(Cause::Empty));
    assert_eq!(end(&[], false), Err(Cause::EarlyEnd));
    assert_eq!(end(&["[DONE]"], true), Err(Cause::Empty));
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#;
    assert_eq!(end(&[START, error], true), Err(Cause::ErrorEvent));
    assert_eq!(end(&[&all[..], &[error, STOP]].concat(), true), Err(Cause::ErrorEvent));
    let silent = FINISH.replace("\"end_turn\"", "null");
    assert_eq!(end(&[START, TEXT, WORD, CLOSE, &silent, STOP], true), Err(Cause::EarlyEnd));
}

#[test]
fn a_missing_end_is_added_and_only_then() {
    let ending = |events: &[&str]| {
        let mut reader = Reader::default();
        for event in events {
            reader.read(event.as_bytes(), None);
        }
        reader.missing_terminator()
    };
    assert_eq!(ending(&[START, FINISH]), MESSAGE_STOP);
    assert_eq!(ending(&[START, FINISH, "[DONE]"]), MESSAGE_STOP);
    assert_eq!(ending(&[START, FINISH, STOP, "[DONE]"]), "");
}

#[test]
fn an_error_is_seen_in_all_its_shapes() {
    for error in [
        r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#,
        r#"{"type":"error"}"#,
        r#"{"code":500,"message":"x","type":"server_error"}"#,
        r#"{"error":{"message":"x","code":500}}"#,
        r#"{"error":"Unexpected endpoint or method."}"#,
    ] {
        assert_eq!(verdicts(&[error]), [Verdict::Error], "{error}");
    }
    for reason in ["abort", "error"] {
        let failed = FINISH.replace("end_turn", reason);
        assert_eq!(verdicts(&[START, &failed])[1], Verdict::Error);
    }
}

#[test]
fn what_is_no_event_of_this_language_is_unreadable() {
    for data in [
        "",
        "x",
        "5",
        "[]",
        "{}",
        r#"{"choices":[]}"#,
        r#"{"type":5}"#,
        r#"{"type":"message_start"}"#,
        r#"{"type":"message_start","message":[]}"#,
        TEXT,
        FINISH,
    ] {
        assert_eq!(verdicts(&[data]), [Verdict::Unreadable], "for {data}");
    }
    for data in [WORD, CLOSE, START, r#"{"type":"content_block_start","index":0}"#] {
        assert_eq!(verdicts(&[START, data])[1], Verdict::Unreadable, "for {data}");
    }
    assert_eq!(verdicts(&[START, TEXT, TEXT])[2], Verdict::Unreadable);
    assert_eq!(verdicts(&[START, TEXT, CLOSE, WORD])[3], Verdict::Unreadable);
    assert_eq!(verdicts(&[START, TEXT, FINISH, WORD])[3], Verdict::Unreadable, "words after the end");
    assert_eq!(verdicts(&[r#"{"type":"from the future"}"#]), [Verdict::Quiet]);
}

#[test]
fn every_stop_reason_has_a_meaning() {
    for (reason, expected) in [
        ("end_turn", Reason::Stop),
        ("stop_sequence", Reason::Stop),
        ("max_tokens", Reason::Length),
        ("model_context_window_exceeded", Reason::Length),
        ("tool_use", Reason::ToolCalls),
        ("refusal", Reason::ContentFilter),
        ("pause_turn", Reason::Other),
        ("new", Reason::Other),
    ] {
        let mut reader = Reader::default();
        reader.read(START.as_bytes(), None);
        reader.read(FINISH.replace("end_turn", reason).as_bytes(), None);
        assert_eq!(reader.reason(), Some(expected), "for {reason}");
    }
    let stop = r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"}}"#;
    let expected = Event::Finished { reason: Reason::Stop, stop: Some("END".to_owned()) };
    assert_eq!(means(&[START, stop])[1..], [expected]);
}

#[test]
fn calls_are_counted_and_have_arguments_in_any_case() {
    let start = |index: usize, input: &str| {
        format!(
            "{{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":{{\"type\":\"tool_use\",\"id\":\"t{index}\",\"name\":\"f\",\"input\":{input}}}}}"
        )
    };
    let piece = |text: &str| {
        format!(
            "{{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":\"{text}\"}}}}"
        )
    };
    let close = |index: usize| format!("{{\"type\":\"content_block_stop\",\"index\":{index}}}");
    let all = [
        START.to_owned(),
        TEXT.to_owned(),
        WORD.to_owned(),
        CLOSE.to_owned(),
        start(1, "{}"),
        piece(""),
        piece("{\\\"a\\\""),
        piece(":1}"),
        close(1),
        start(2, "{\"b\":2}"),
        close(2),
        start(3, "{}"),
        FINISH.replace("end_turn", "tool_use"),
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let call = |index, id: &str| Event::Call { index, id: Some(id.to_owned()), name: "f".to_owned() };
    let arguments = |index, text: &str| Event::Arguments { index, text: text.to_owned() };
    let events = means(&all);
    let expected = [
        Event::Text("a".to_owned()),
        call(0, "t1"),
        arguments(0, "{\"a\""),
        arguments(0, ":1}"),
        call(1, "t2"),
        arguments(1, "{\"b\":2}"),
        call(2, "t3"),
        arguments(2, "{}"),
        Event::Finished { reason: Reason::ToolCalls, stop: None },
    ];
    assert_eq!(events[1..events.len() - 1], expected);
}

#[test]
fn thoughts_and_their_proofs() {
    let start = r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#;
    let piece = |kind: &str, text: &str| {
        format!(
            "{{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"{kind}_delta\",\"{kind}\":\"{text}\"}}}}"
        )
    };
    let thought = Event::Thinking("hm".to_owned());
    let events = means(&[START, start, &piece("thinking", "hm"), &piece("signature", "s")]);
    assert_eq!(events[1..], [thought.clone(), Event::Signature("s".to_owned())]);
    let events = means(&[START, start, &piece("thinking", "hm"), &piece("signature", UNSIGNED)]);
    assert_eq!(events[1..], [thought], "our own mark proves nothing");
    let hidden =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"d"}}"#;
    assert_eq!(means(&[START, hidden])[1..], [Event::Signature("d".to_owned())]);
    assert_eq!(verdicts(&[START, hidden])[1], Verdict::Content);
}
