use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::*;
use crate::{
    dialect::{
        Reader as _, Verdict, Writer as _,
        anthropic::reader::Reader,
        frames::{Cutter, FrameData},
    },
    generate::Operation,
};

fn voice() -> Voice {
    Voice {
        id: "r1".to_owned(),
        model: "qwen3:8b".to_owned(),
        at_ms: 0,
        waited: Duration::ZERO,
        asks_usage: true,
        operation: Operation::Chat,
        request: Bytes::new(),
    }
}

fn written(events: impl IntoIterator<Item = Event>) -> String {
    let mut writer = Writer::new(voice());
    let mut out = BytesMut::new();
    for event in events {
        writer.write(event, &mut out);
    }
    writer.finish(Duration::ZERO, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

fn call(index: usize, name: &str) -> Event {
    Event::Call { index, id: Some(format!("call_{index}")), name: name.to_owned() }
}

fn piece(index: usize, text: &str) -> Event {
    Event::Arguments { index, text: text.to_owned() }
}

fn finished(reason: Reason) -> Event {
    Event::Finished { reason, stop: None }
}

fn usage(input: u64, output: u64) -> Event {
    Event::Usage(Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() })
}

#[test]
fn an_answer_of_words() {
    let stop = Event::Finished { reason: Reason::Stop, stop: Some("###".to_owned()) };
    insta::assert_snapshot!("words", written([text("Hel"), text("lo \"é\"\n"), stop, usage(25, 3)]));
}

#[test]
fn an_answer_with_thoughts_and_calls() {
    let events = [
        usage(25, 0),
        Event::Thinking("hm".to_owned()),
        Event::Thinking("m".to_owned()),
        text("I'll look."),
        call(0, "Bash"),
        piece(0, "{\"command\":"),
        piece(0, "\"ls\"}"),
        Event::Call { index: 1, id: None, name: "Now".to_owned() },
        finished(Reason::ToolCalls),
        usage(25, 30),
    ];
    insta::assert_snapshot!("thoughts_and_calls", written(events));
}

#[test]
fn calls_that_take_turns_are_written_one_after_the_other() {
    let events = [
        call(0, "f"),
        call(1, "g"),
        piece(0, "{\"a\":"),
        piece(1, "{\"b\":"),
        text("meanwhile"),
        piece(0, "1}"),
        piece(1, "2}"),
        finished(Reason::ToolCalls),
    ];
    insta::assert_snapshot!("turns", written(events));
}

#[test]
fn a_complete_call_is_not_waited_for() {
    let mut writer = Writer::new(voice());
    let mut out = BytesMut::new();
    for event in [call(0, "f"), piece(0, "{}"), call(1, "g"), piece(1, "{\"b\"")] {
        writer.write(event, &mut out);
    }
    let out = String::from_utf8(out.to_vec()).unwrap();
    assert!(out.ends_with("\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"b\\\"\"}}\n\n"));
}

#[test]
fn an_answer_of_nothing_is_an_answer() {
    insta::assert_snapshot!("nothing", written([finished(Reason::Stop)]));
}

#[test]
fn the_prompt_is_guessed_at_until_its_length_is_known() {
    let request = r#"{"model":"m","messages":[{"role":"user","content":"Count for me, please."}]}"#;
    let mut writer = Writer::new(Voice { request: Bytes::from_static(request.as_bytes()), ..voice() });
    let mut out = BytesMut::new();
    writer.write(finished(Reason::Stop), &mut out);
    writer.write(usage(27, 4), &mut out);
    writer.finish(Duration::ZERO, &mut out);
    let out = String::from_utf8(out.to_vec()).unwrap();
    assert!(out.contains("\"usage\":{\"input_tokens\":10,\"output_tokens\":0}"), "{out}");
    assert!(out.contains("\"usage\":{\"input_tokens\":27,\"output_tokens\":4}"), "{out}");
}

#[test]
fn proofs_belong_to_their_thoughts() {
    let thinking = |text: &str| Event::Thinking(text.to_owned());
    let signature = |text: &str| Event::Signature(text.to_owned());
    let all = written([thinking("a"), signature("s"), thinking("b"), text("x"), finished(Reason::Stop)]);
    let signatures: Vec<&str> = all.lines().filter(|it| it.contains("signature_delta")).collect();
    assert_eq!(signatures.len(), 2);
    assert!(signatures[0].contains("\"signature\":\"s\"") && signatures[1].contains(UNSIGNED));
}

#[test]
fn what_waits_has_a_bound() {
    let mut writer = Writer::new(voice());
    let mut out = BytesMut::new();
    writer.write(call(0, "f"), &mut out);
    writer.write(piece(0, "{"), &mut out);
    let long = "x".repeat(1 << 20);
    for _ in 0..10 {
        writer.write(text(&long), &mut out);
    }
    assert!(out.len() > 8 << 20, "the broken call is given up");
    assert!(writer.held <= MOST_WAITING);
}

/// What the reader makes of what the writer wrote, cut into pieces.
fn read(stream: &str, chunk: usize) -> (Vec<Event>, Vec<Verdict>, Result<(), crate::fault::Cause>) {
    let stream = Bytes::copy_from_slice(stream.as_bytes());
    let mut cutter = Cutter::new(16 << 20);
    let mut reader = Reader::default();
    let (mut events, mut verdicts) = (Vec::new(), Vec::new());
    for piece in stream.chunks(chunk.max(1)) {
        cutter.push(stream.slice_ref(piece));
        for frame in cutter.by_ref() {
            let FrameData::Event(data) = frame.unwrap().data else { panic!("no event") };
            verdicts.push(reader.read(&data, Some(&mut events)).verdict);
        }
    }
    assert_eq!(cutter.rest(), 0);
    (events, verdicts, reader.end(true))
}

/// Checks what the official clients rely on.
fn check_order(stream: &str) {
    let events: Vec<(&str, Value)> = stream
        .split_terminator("\n\n")
        .map(|it| {
            let (name, data) = it.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.strip_prefix("event: ").unwrap(), data)
        })
        .collect();
    let (mut next, mut open) = (0, None);
    for (at, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], *name);
        assert_eq!(*name == "message_start", at == 0);
        assert_eq!(*name == "message_stop", at == events.len() - 1);
        assert_eq!(*name == "message_delta", at + 2 == events.len());
        match *name {
            "content_block_start" => {
                assert_eq!((open, &data["index"]), (None, &Value::from(next)));
                open = Some(next);
                next += 1;
            }
            "content_block_delta" => assert_eq!(data["index"], open.unwrap()),
            "content_block_stop" => assert_eq!(data["index"], open.take().unwrap()),
            "message_start" => assert!(data["message"]["usage"]["input_tokens"].is_u64()),
            "message_delta" => {
                assert_eq!(open, None);
                assert!(data["delta"]["stop_reason"].is_string() && data["usage"]["output_tokens"].is_u64());
            }
            _ => assert_eq!(*name, "message_stop"),
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;
    use crate::generate::{Answer, Said};

    #[derive(Clone, Debug)]
    enum Thing {
        Text(Vec<String>),
        Thinking(Vec<String>, Option<String>),
        /// Calls whose arguments take turns in the order of the numbers.
        Calls(Vec<(bool, Vec<String>)>, Vec<usize>),
    }

    fn pieces() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-z \"\\\\é🙂\n{}\\[\\]]{1,5}", 1..5)
    }

    fn thing() -> impl Strategy<Value = Thing> {
        prop_oneof![
            pieces().prop_map(Thing::Text),
            (pieces(), prop::option::of("[a-z]{1,4}")).prop_map(|(text, proof)| Thing::Thinking(text, proof)),
            (
                prop::collection::vec((any::<bool>(), pieces()), 1..4),
                prop::collection::vec(any::<usize>(), 0..20)
            )
                .prop_map(|(calls, order)| Thing::Calls(calls, order)),
        ]
    }

    /// The events of these things. Arguments are whole objects, cut anywhere.
    fn events(things: &[Thing]) -> Vec<Event> {
        let mut out = Vec::new();
        let mut calls = 0;
        for thing in things {
            match thing {
                Thing::Text(pieces) => out.extend(pieces.iter().cloned().map(Event::Text)),
                Thing::Thinking(pieces, proof) => {
                    out.extend(pieces.iter().cloned().map(Event::Thinking));
                    out.extend(proof.iter().cloned().map(Event::Signature));
                }
                Thing::Calls(all, order) => {
                    let mut left = Vec::new();
                    for (number, (has_id, words)) in all.iter().enumerate() {
                        let index = calls + number;
                        let id = has_id.then(|| format!("call_{index}"));
                        out.push(Event::Call { index, id, name: format!("f{index}") });
                        let object = serde_json::json!({ "words": words, "n": {"m": [1]} }).to_string();
                        let cut: Vec<String> = object
                            .chars()
                            .collect::<Vec<_>>()
                            .chunks(7)
                            .map(|it| it.iter().collect())
                            .collect();
                        left.push((index, cut.into_iter()));
                    }
                    for turn in order {
                        let (index, pieces) = &mut left[turn % all.len()];
                        out.extend(pieces.next().map(|text| Event::Arguments { index: *index, text }));
                    }
                    for (index, pieces) in left {
                        out.extend(pieces.map(|text| Event::Arguments { index, text }));
                    }
                    calls += all.len();
                }
            }
        }
        out
    }

    /// An answer as it must come back: ids that were made up are taken off.
    fn canonical(events: Vec<Event>) -> Answer {
        let mut answer: Answer = events.into_iter().collect();
        for said in &mut answer.said {
            if let Said::Call { id, .. } = said {
                *id = id.take().filter(|it| !it.starts_with("toolu_"));
            }
        }
        answer
    }

    fn reason() -> impl Strategy<Value = Reason> {
        prop_oneof![Just(Reason::Stop), Just(Reason::Length), Just(Reason::ContentFilter)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            things in prop::collection::vec(thing(), 0..6),
            reason in reason(),
            counts in (1_u64..9, 1_u64..9, prop::option::of(0_u64..3), prop::option::of(0_u64..3)),
            chunk in 1_usize..40,
        ) {
            let mut all = events(&things);
            let calls = all.iter().any(|it| matches!(it, Event::Call { .. }));
            let reason = if calls && reason == Reason::Stop { Reason::ToolCalls } else { reason };
            all.push(finished(reason));
            let (input, output, cached_tokens, reasoning_tokens) = counts;
            let usage = Usage {
                input_tokens: Some(input + cached_tokens.unwrap_or(0)),
                output_tokens: Some(output),
                cached_tokens,
                reasoning_tokens,
                ..Usage::default()
            };
            all.push(Event::Usage(usage));
            let stream = written(all.clone());
            check_order(&stream);
            let (read, verdicts, end) = read(&stream, chunk);
            prop_assert_eq!(end, Ok(()));
            prop_assert!(!verdicts.contains(&Verdict::Unreadable));
            let (expected, got) = (canonical(all), canonical(read));
            prop_assert_eq!(got.said, expected.said);
            prop_assert_eq!((got.reason, got.usage), (expected.reason, expected.usage));
        }

        #[test]
        fn a_stream_is_judged_the_same_however_it_is_cut(
            things in prop::collection::vec(thing(), 0..4), chunk in 1_usize..40, keep in 0_usize..2000,
        ) {
            let mut all = events(&things);
            all.push(finished(Reason::Stop));
            let stream = written(all);
            let whole: String = stream.split_inclusive("\n\n").take(keep % 40 + 1).collect();
            let (one, other) = (read(&whole, chunk), read(&whole, usize::MAX));
            prop_assert_eq!(one, other);
        }

        #[test]
        fn without_a_reason_there_is_never_an_end(things in prop::collection::vec(thing(), 0..4)) {
            let stream = written(events(&things));
            prop_assert!(!stream.contains("event: message_stop") && !stream.contains("event: message_delta"));
        }

        #[test]
        fn no_events_in_any_order_break_the_order(
            picks in prop::collection::vec((0_usize..8, 0_usize..4, "[{}\\[\\]\"\\\\a ]{0,4}"), 0..40),
        ) {
            let mut all: Vec<Event> = picks
                .into_iter()
                .map(|(pick, index, words)| match pick {
                    0 => Event::Text(words),
                    1 => Event::Thinking(words),
                    2 => Event::Signature(words),
                    3 => Event::Refusal(words),
                    4 => Event::Call { index, id: None, name: words },
                    5 => Event::Logprobs(vec![]),
                    _ => Event::Arguments { index, text: words },
                })
                .collect();
            all.push(finished(Reason::Stop));
            check_order(&written(all));
        }
    }
}
