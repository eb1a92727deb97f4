//! Both sides of the language against each other, and against recorded servers.

use std::{fs, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Responses;
use crate::{
    dialect::{
        Dialect, Door, Verdict, Voice,
        frames::{Cutter, FrameData},
    },
    fault::Cause,
    generate::{Answer, Event, Operation, Reason, Said, Usage},
};

fn voice(request: Value) -> Voice {
    Voice {
        id: "r1".to_owned(),
        model: "tiny-a".to_owned(),
        at_ms: 1_795_463_532_123,
        waited: Duration::ZERO,
        asks_usage: true,
        operation: Operation::Chat,
        request: request.to_string().into(),
    }
}

/// The stream that tells of these events.
fn written(events: impl IntoIterator<Item = Event>, request: Value) -> Bytes {
    let mut writer = Responses.writer(Door::Responses, voice(request));
    let mut out = BytesMut::new();
    for event in events {
        writer.write(event, &mut out);
    }
    writer.finish(Duration::ZERO, &mut out);
    out.freeze()
}

/// The data of its frames.
fn data(stream: &[u8]) -> Vec<Bytes> {
    let mut cutter = Cutter::new(1 << 20);
    cutter.push(Bytes::copy_from_slice(stream));
    let frames: Vec<_> = cutter.by_ref().map(|it| it.unwrap().data).collect();
    assert_eq!(cutter.rest(), 0);
    let data = frames.into_iter().filter_map(|it| match it {
        FrameData::Event(data) => Some(data),
        FrameData::Comment => None,
        FrameData::Broken => panic!("a broken frame"),
    });
    data.collect()
}

fn parsed(stream: &[u8]) -> Vec<Value> {
    data(stream).iter().map(|it| serde_json::from_slice(it).unwrap()).collect()
}

/// What its frames mean, and whether it is whole.
fn read(stream: &[u8]) -> (Answer, Result<(), Cause>) {
    let mut reader = Responses.reader(Door::Responses, Operation::Chat);
    let mut events = Vec::new();
    for data in data(stream) {
        reader.read(&data, Some(&mut events));
    }
    (events.into_iter().collect(), reader.end(true))
}

fn folded(stream: &[u8]) -> Value {
    let mut fold = Responses.fold(Door::Responses, Operation::Chat);
    for data in data(stream) {
        fold.add(&data);
    }
    serde_json::from_slice(&fold.finish().unwrap()).unwrap()
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

fn thinking(text: &str) -> Event {
    Event::Thinking(text.to_owned())
}

fn call(index: usize, id: Option<&str>, name: &str) -> Event {
    Event::Call { index, id: id.map(str::to_owned), name: name.to_owned() }
}

fn piece(index: usize, text: &str) -> Event {
    Event::Arguments { index, text: text.to_owned() }
}

fn finished(reason: Reason) -> Event {
    Event::Finished { reason, stop: None }
}

fn counted(input: u64, output: u64) -> Event {
    let usage = Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() };
    Event::Usage(usage)
}

fn shown(events: impl IntoIterator<Item = Event>, request: Value) -> String {
    String::from_utf8(written(events, request).to_vec()).unwrap()
}

/// The types and what is special of each event, a line each, without the objects that repeat everything.
fn outline(events: impl IntoIterator<Item = Event>, request: Value) -> String {
    let mut outline = String::new();
    for mut event in parsed(&written(events, request)) {
        let fields = event.as_object_mut().unwrap();
        let kind = fields.remove("type").unwrap();
        let number = fields.remove("sequence_number").unwrap();
        if let Some(response) = fields.get_mut("response") {
            *response = json!({"status": response["status"], "output": response["output"], "usage": response["usage"],
                "incomplete_details": response["incomplete_details"]});
        }
        outline.push_str(&format!("{number} {} {event}\n", kind.as_str().unwrap()));
    }
    outline
}

#[test]
fn a_stream_of_text_is_told_as_official_clients_require() {
    let events = [text("Hé"), text("llo"), counted(5, 2), finished(Reason::Stop)];
    insta::assert_snapshot!("text", shown(events, json!({"model": "m", "input": "hi", "temperature": 0.5})));
}

#[test]
fn thoughts_calls_refusals_and_cuts_are_told_as_official_clients_require() {
    let request = json!({"tools": [{"type": "custom", "name": "apply_patch"}], "top_logprobs": 1});
    let mut all = String::new();
    for (title, events) in [
        (
            "a thought with its proof, text and two calls that take turns",
            vec![
                thinking("h"),
                thinking("m"),
                Event::Signature("s".to_owned()),
                text("I look"),
                call(0, Some("c1"), "f"),
                call(1, None, "g"),
                piece(0, "{\"a\""),
                piece(1, "{}"),
                piece(0, ":1}"),
                finished(Reason::ToolCalls),
                counted(5, 2),
            ],
        ),
        (
            "a custom tool, and a call without arguments",
            vec![
                call(0, None, "apply_patch"),
                piece(0, "{\"input\":\"*** Be"),
                piece(0, "gin\"}"),
                call(1, None, "f"),
                finished(Reason::ToolCalls),
            ],
        ),
        ("a refusal after text", vec![text("Well"), Event::Refusal("no".to_owned()), finished(Reason::Stop)]),
        ("a cut", vec![text("Once upon"), finished(Reason::Length)]),
        ("a cut inside a call", vec![call(0, None, "f"), piece(0, "{\"a"), finished(Reason::Length)]),
        ("a filter", vec![text("x"), finished(Reason::ContentFilter)]),
        ("nothing", vec![finished(Reason::Stop)]),
        (
            "log probabilities",
            vec![
                text("a"),
                Event::Logprobs(vec![
                    json!({"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}),
                ]),
                text("b"),
                finished(Reason::Stop),
            ],
        ),
    ] {
        all.push_str(&format!("{title}\n{}\n", outline(events, request.clone())));
    }
    insta::assert_snapshot!("outlines", all);
}

#[test]
fn a_whole_answer_repeats_what_the_request_said() {
    let request = json!({
        "model": "m", "input": "hi", "instructions": "be brief", "max_output_tokens": 5, "metadata": {"a": "b"},
        "parallel_tool_calls": false, "reasoning": {"effort": "low"}, "temperature": 0.5, "store": true,
        "text": {"format": {"type": "json_object"}}, "tool_choice": "required", "truncation": "auto", "user": null,
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": true}],
    });
    let events =
        [thinking("hm"), text("a"), call(0, Some("c"), "f"), piece(0, "{}"), finished(Reason::ToolCalls)];
    let answer: Answer = events.into_iter().collect();
    let whole: Value =
        serde_json::from_slice(&Responses.whole(Door::Responses, &answer, &voice(request))).unwrap();
    insta::assert_json_snapshot!("whole", whole);
}

#[test]
fn without_a_reason_nothing_says_that_the_answer_is_whole() {
    let stream = written([text("a")], json!({}));
    assert_eq!(read(&stream).1, Err(Cause::EarlyEnd));
    let kinds: Vec<_> = parsed(&stream).iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
    assert!(kinds.iter().all(|it| !["response.completed", "response.incomplete"].contains(&it.as_str())));
}

#[test]
fn what_keeps_a_stream_alive_and_what_breaks_it_off_are_read_as_such() {
    let alive = Responses.keep_alive(Door::Responses, "m");
    assert_eq!(data(&alive), Vec::<Bytes>::new());
    let broken = Responses.break_off(&crate::fault::Failure::Internal, "r1", 3);
    let mut reader = Responses.reader(Door::Responses, Operation::Chat);
    for data in data(&broken) {
        assert_eq!(reader.read(&data, None).verdict, Verdict::Error);
    }
    assert_eq!(reader.end(true), Err(Cause::ErrorEvent));
}

// What servers were recorded to answer.

/// The body of a recorded answer.
fn recorded(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(path);
    let bytes = fs::read(&file).unwrap();
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let (head, mut rest) = (String::from_utf8_lossy(&bytes[..end]).to_lowercase(), &bytes[end + 4..]);
    if !head.contains("transfer-encoding: chunked") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|it| it == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

#[test]
fn recorded_streams_are_whole_and_mean_what_they_say() {
    for path in
        ["ollama-0.24.0/147-ollama-responses-stream.http", "transformers-serve-5.19.0/38-responses.http"]
    {
        let stream = recorded(path);
        let (answer, end) = read(&stream);
        assert_eq!(end, Ok(()), "{path}");
        assert_eq!(answer.said, [Said::Text(" able about above acid".to_owned())], "{path}");
        assert_eq!(answer.reason, Some(Reason::Stop), "{path}");
        assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (Some(25), Some(4)), "{path}");
        let whole = folded(&stream);
        assert_eq!(whole["output"][0]["content"][0]["text"], " able about above acid", "{path}");
        let mut events = Vec::new();
        let whole = whole.to_string();
        Responses.judge_plain(Door::Responses, Operation::Chat, whole.as_bytes(), Some(&mut events)).unwrap();
        assert_eq!(events.into_iter().collect::<Answer>(), answer, "{path}");
    }
}

#[test]
fn recorded_answers_are_judged() {
    let judge = |path: &str| {
        let mut events = Vec::new();
        let plain =
            Responses.judge_plain(Door::Responses, Operation::Chat, &recorded(path), Some(&mut events));
        (plain, events.into_iter().collect::<Answer>())
    };
    for (path, reason, cached) in [
        ("vllm-0.32.0/38-responses.http", Reason::Length, 0),
        ("llamacpp-b11549/38-responses.http", Reason::Stop, 24),
        ("ollama-0.24.0/38-responses.http", Reason::Stop, 0),
    ] {
        let (plain, answer) = judge(path);
        let plain = plain.unwrap();
        assert_eq!(answer.text(), " able about above acid", "{path}");
        assert_eq!((plain.reason, answer.reason), (Some(reason), Some(reason)), "{path}");
        assert_eq!((plain.usage.output_tokens, plain.usage.cached_tokens), (Some(4), Some(cached)), "{path}");
        assert!(plain.model.is_some_and(|it| it.starts_with("tiny")), "{path}");
    }
    let (plain, answer) = judge("litellm-1.106.2/38-responses.http");
    assert_eq!(plain.unwrap().usage.output_tokens, Some(16));
    assert!(answer.text().starts_with(" able about above acid"));
    assert_eq!(
        judge("ollama-0.24.0/157-ollama-unknown-responses.http").0,
        Err(Cause::ErrorEvent),
        "whatever the status"
    );
    assert_eq!(judge("llama-cpp-python-0.3.36/38-responses.http").0, Err(Cause::Unreadable));
}

#[test]
fn an_answer_is_whole_or_a_fault() {
    let check = |body: &str, expected: Result<Reason, Cause>| {
        let judged = Responses.judge_plain(Door::Responses, Operation::Chat, body.as_bytes(), None);
        assert_eq!(judged.map(|it| it.reason.unwrap()), expected, "for {body}");
    };
    let message = r#""output":[{"type":"message","content":[]}]"#;
    check(&format!("{{\"status\":\"completed\",{message}}}"), Ok(Reason::Stop));
    check(r#"{"status":"completed","output":[{"type":"function_call"}]}"#, Ok(Reason::ToolCalls));
    check(
        r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#,
        Ok(Reason::Length),
    );
    check(r#"{"status":"incomplete","output":[]}"#, Err(Cause::Empty));
    check(r#"{"status":"completed","output":[]}"#, Err(Cause::Empty));
    check(r#"{"status":"failed","output":[]}"#, Err(Cause::ErrorEvent));
    check(
        &format!("{{\"status\":\"completed\",\"error\":{{\"code\":1}},{message}}}"),
        Err(Cause::ErrorEvent),
    );
    check(&format!("{{\"status\":\"in_progress\",{message}}}"), Err(Cause::EarlyEnd));
    check(&format!("{{{message}}}"), Err(Cause::EarlyEnd));
    check("{\"status\":\"completed\"}", Err(Cause::Unreadable));
    check("{\"status\":\"completed\",\"output\":{}}", Err(Cause::Unreadable));
    check("{\"error\":{\"message\":\"x\"}}", Err(Cause::ErrorEvent));
    check("{\"detail\":\"x\"}", Err(Cause::Unreadable));
    check("", Err(Cause::Empty));
    check("<html>", Err(Cause::Unreadable));
}

// What holds for every answer.

fn words() -> impl Strategy<Value = String> {
    "[a-z\"\\\\é\n\u{1f600} ]{1,6}"
}

/// Events as servers give them: calls may take turns, and text may come between.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let step = prop_oneof![
        4 => words().prop_map(Event::Text),
        2 => words().prop_map(Event::Thinking),
        1 => words().prop_map(Event::Signature),
        1 => words().prop_map(Event::Refusal),
        2 => (prop::option::of("[a-z]{1,4}"), "[a-z]{1,4}")
            .prop_map(|(id, name)| Event::Call { index: 0, id, name }),
        3 => (0..4usize, words()).prop_map(|(index, text)| Event::Arguments { index, text }),
        1 => (0..9u64).prop_map(|it| Event::Logprobs(vec![json!({"token": it.to_string(), "logprob": -0.5})])),
    ];
    let count = prop::option::of(0..1000u64);
    let usage = (count.clone(), count.clone(), count.clone(), count).prop_map(|(a, b, c, d)| Usage {
        input_tokens: a,
        output_tokens: b,
        cached_tokens: c,
        reasoning_tokens: d,
        ..Usage::default()
    });
    let reason = prop::sample::select(vec![Reason::Stop, Reason::Length, Reason::ContentFilter]);
    (prop::collection::vec(step, 0..12), usage, reason).prop_map(|(steps, usage, reason)| {
        let mut events = Vec::new();
        let (mut calls, mut open) = (0, Vec::new());
        let mut last_is_text = false;
        for step in steps {
            match step {
                Event::Call { id, name, .. } => {
                    events.push(Event::Call { index: calls, id, name });
                    // None at all would be written as `{}`.
                    events.push(piece(calls, "{\"a\":["));
                    open.push(calls);
                    calls += 1;
                    last_is_text = false;
                }
                // Half of the pieces end their call, so that some are whole long before the answer is.
                Event::Arguments { index, text } if !open.is_empty() => {
                    let call = open[index % open.len()];
                    let text = serde_json::to_string(&text).unwrap();
                    let ends = index % 2 == 0;
                    events.push(piece(call, &if ends { format!("{text}]}}") } else { format!("{text},") }));
                    open.retain(|it| !ends || *it != call);
                    last_is_text = false;
                }
                Event::Logprobs(_) if !last_is_text => {}
                Event::Arguments { .. } => {}
                other => {
                    last_is_text = matches!(other, Event::Text(_));
                    events.push(other);
                }
            }
        }
        let reason = if calls > 0 && reason == Reason::Stop { Reason::ToolCalls } else { reason };
        events.push(finished(reason));
        events.push(Event::Usage(usage));
        events
    })
}

/// An answer with the ids that we make where a server gave none.
fn with_ids(mut answer: Answer) -> Answer {
    for said in &mut answer.said {
        if let Said::Call { index, id, .. } = said {
            id.get_or_insert_with(|| format!("call_r1_{index}"));
        }
    }
    answer
}

fn parts(answer: &Answer) -> (&[Said], &[Value], Usage, Option<Reason>) {
    (&answer.said, &answer.logprobs, answer.usage, answer.reason)
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(events in events()) {
        let request = json!({"include": ["message.output_text.logprobs"]});
        let stream = written(events.clone(), request.clone());
        let answer = with_ids(events.into_iter().collect());
        let (told, end) = read(&stream);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(parts(&told), parts(&answer));

        // The whole answer is what the last event has, and means the same.
        let whole = Responses.whole(Door::Responses, &answer, &voice(request));
        let mut events = Vec::new();
        Responses.judge_plain(Door::Responses, Operation::Chat, &whole, Some(&mut events)).unwrap();
        let told: Answer = events.into_iter().collect();
        prop_assert_eq!((&told.said, told.usage, told.reason), (&answer.said, answer.usage, answer.reason));
        prop_assert_eq!(told.logprobs.len(), answer.logprobs.len());
    }

    #[test]
    fn numbers_count_up_by_one_and_only_the_last_event_ends(events in events()) {
        let told = parsed(&written(events, json!({"top_logprobs": 2})));
        for (at, event) in told.iter().enumerate() {
            prop_assert_eq!(&event["sequence_number"], at);
            let ends = ["response.completed", "response.incomplete"].contains(&event["type"].as_str().unwrap());
            prop_assert_eq!(ends, at + 1 == told.len());
        }
    }

    #[test]
    fn items_are_told_one_after_the_other(events in events()) {
        let told = parsed(&written(events, json!({})));
        let (mut open, mut ended) = (None, Vec::new());
        for event in &told {
            match event["type"].as_str().unwrap() {
                "response.output_item.added" => {
                    prop_assert_eq!(&event["output_index"], ended.len());
                    prop_assert_eq!(open.replace(event["item"]["id"].clone()), None);
                }
                "response.output_item.done" => {
                    prop_assert_eq!(open.take(), Some(event["item"]["id"].clone()));
                    ended.push(event["item"].clone());
                }
                _ if event["item_id"].is_string() => {
                    prop_assert_eq!(open.as_ref(), Some(&event["item_id"]));
                    prop_assert_eq!(&event["output_index"], ended.len());
                }
                _ => {}
            }
        }
        prop_assert_eq!(open, None);
        prop_assert_eq!(&told.last().unwrap()["response"]["output"], &Value::from(ended));
    }

    #[test]
    fn a_stream_cut_anywhere_means_the_same(events in events(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let stream = written(events, json!({}));
        let mut cuts: Vec<_> = cuts.iter().map(|it| it.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let mut cutter = Cutter::new(1 << 20);
        let mut reader = Responses.reader(Door::Responses, Operation::Chat);
        let (mut from, mut told) = (0, Vec::new());
        for to in cuts {
            cutter.push(stream.slice(from..to));
            from = to;
            for frame in cutter.by_ref() {
                if let FrameData::Event(data) = frame.unwrap().data {
                    reader.read(&data, Some(&mut told));
                }
            }
        }
        prop_assert_eq!(reader.end(true), Ok(()));
        let told: Answer = told.into_iter().collect();
        prop_assert_eq!(told, read(&stream).0);
    }

    #[test]
    fn a_stream_that_is_cut_short_is_never_whole(events in events(), at in any::<prop::sample::Index>()) {
        let stream = written(events, json!({}));
        let frames = data(&stream);
        let mut reader = Responses.reader(Door::Responses, Operation::Chat);
        for data in &frames[..at.index(frames.len())] {
            reader.read(data, None);
        }
        prop_assert!(reader.end(true).is_err());
    }

    #[test]
    fn no_frame_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0..8usize, index in any::<u64>()) {
        let kinds = ["output_item.added", "output_item.done", "completed", "output_text.delta",
            "function_call_arguments.delta", "reasoning_summary_part.added", "failed", "incomplete"];
        let junk = String::from_utf8_lossy(&bytes).into_owned();
        let frame = json!({"type": format!("response.{}", kinds[kind]), "output_index": index, "item": {"type": junk},
            "delta": junk, "response": {"status": junk, "output": [junk]}, "logprobs": junk, "summary_index": junk});
        let mut reader = Responses.reader(Door::Responses, Operation::Chat);
        let mut fold = Responses.fold(Door::Responses, Operation::Chat);
        for data in [&bytes[..], frame.to_string().as_bytes()] {
            reader.read(data, Some(&mut Vec::new()));
            fold.add(data);
        }
        let _ = (reader.end(true), fold.finish());
        let _ = Responses.judge_plain(Door::Responses, Operation::Chat, &bytes, Some(&mut Vec::new()));
        let _ = Responses.understand(Door::Responses, &bytes);
        let _ = Responses.understand(Door::Responses, json!({"input": [{"type": junk}], "tools": [{"type": junk}]}).to_string().as_bytes());
    }
}
