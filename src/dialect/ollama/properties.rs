//! What holds for every answer and every request in Ollama's language.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Ollama;
use crate::{
    dialect::{Dialect, Door, To, Voice},
    fault::Failure,
    generate::{Answer, Event, Operation, Reason, Said, Usage},
};

pub(super) fn voice() -> Voice {
    Voice {
        id: "r1".to_owned(),
        model: "m".to_owned(),
        at_ms: 1_764_000_000_000,
        waited: Duration::from_millis(250),
        asks_usage: true,
        operation: Operation::Chat,
        request: Bytes::new(),
    }
}

pub(super) fn written(door: Door, events: impl IntoIterator<Item = Event>) -> String {
    let mut writer = Ollama.writer(door, voice());
    let mut out = BytesMut::new();
    for event in events {
        writer.write(event, &mut out);
    }
    writer.finish(Duration::from_secs(2), &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

pub(super) fn read(door: Door, stream: &str) -> (Answer, Result<(), crate::fault::Cause>) {
    let mut reader = Ollama.reader(door, Operation::Chat);
    let mut events = Vec::new();
    for line in stream.lines() {
        reader.read(line.as_bytes(), Some(&mut events));
    }
    (events.into_iter().collect(), reader.end(true))
}

/// One of the two doors that stream.
fn door() -> impl Strategy<Value = Door> {
    prop_oneof![Just(Door::OllamaChat), Just(Door::OllamaGenerate)]
}

fn said() -> impl Strategy<Value = Vec<Said>> {
    let text = "[a-zé\"\\\\\n\u{2028} ]{1,8}";
    let arguments =
        prop::collection::btree_map("[a-z]{1,3}", any::<i32>(), 0..3).prop_map(|it| json!(it).to_string());
    let piece = prop_oneof![
        text.prop_map(Said::Text),
        text.prop_map(|text| Said::Thinking { text, signature: None }),
        (prop::option::of("call_[0-9]{3}"), "[a-z_]{1,6}", arguments)
            .prop_map(|(id, name, arguments)| { Said::Call { index: 0, id, name, arguments } }),
    ];
    prop::collection::vec(piece, 0..8)
}

/// The events of an answer, texts and arguments cut into pieces of `size` characters.
fn events(said: &[Said], size: usize) -> Vec<Event> {
    let pieces = |text: &str| -> Vec<String> {
        text.chars().collect::<Vec<_>>().chunks(size).map(|it| it.iter().collect()).collect()
    };
    let (mut events, mut calls) = (Vec::new(), 0);
    for said in said {
        match said {
            Said::Text(text) | Said::Refusal(text) => {
                events.extend(pieces(text).into_iter().map(Event::Text))
            }
            Said::Thinking { text, .. } => events.extend(pieces(text).into_iter().map(Event::Thinking)),
            Said::Call { id, name, arguments, .. } => {
                events.push(Event::Call { index: calls, id: id.clone(), name: name.clone() });
                let pieces = pieces(arguments).into_iter();
                events.extend(pieces.map(|text| Event::Arguments { index: calls, text }));
                calls += 1;
            }
        }
    }
    events
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::Stop),
        Just(Reason::Length),
        Just(Reason::ToolCalls),
        Just(Reason::ContentFilter),
        Just(Reason::Other)
    ]
}

/// The answer as it is after a journey: ids are there, and calls are a reason to stop.
fn expected(events: Vec<Event>, reason: Reason, usage: Usage) -> Answer {
    let mut answer: Answer = events.into_iter().collect();
    for said in &mut answer.said {
        if let Said::Call { index, id, .. } = said {
            id.get_or_insert_with(|| format!("call_r1_{index}"));
        }
    }
    answer.usage = usage;
    answer.reason = Some(match reason {
        Reason::Stop | Reason::ToolCalls if answer.calls() => Reason::ToolCalls,
        Reason::ToolCalls => Reason::Stop,
        reason => reason,
    });
    answer
}

fn usage() -> impl Strategy<Value = Usage> {
    (prop::option::of(1_u64..9), prop::option::of(0_u64..9)).prop_map(|(input_tokens, output_tokens)| Usage {
        input_tokens,
        output_tokens,
        ..Usage::default()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same_answer(
        door in door(), said in said(), size in 1_usize..6, reason in reason(), usage in usage(),
    ) {
        let mut sent = events(&said, size);
        let wanted = expected(sent.clone(), reason, usage);
        sent.push(Event::Usage(usage));
        sent.push(Event::Finished { reason, stop: None });
        let stream = written(door, sent);
        let (answer, end) = read(door, &stream);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!((&answer.said, answer.usage, answer.reason), (&wanted.said, wanted.usage, wanted.reason));

        // Folded it is one answer that is judged to be whole, with the same words.
        let mut fold = Ollama.fold(door, Operation::Chat);
        for line in stream.lines() {
            fold.add(line.as_bytes());
        }
        prop_assert!(!fold.is_broken());
        let mut events = Vec::new();
        let body = fold.finish().unwrap();
        let plain = Ollama.judge_plain(door, Operation::Chat, &body, Some(&mut events)).unwrap();
        let folded: Answer = events.into_iter().collect();
        prop_assert_eq!((folded.text(), folded.thinking()), (wanted.text(), wanted.thinking()));
        prop_assert_eq!((plain.usage, plain.reason), (wanted.usage, wanted.reason));

        // And so is the answer that is written whole.
        let body = Ollama.whole(door, &wanted, &voice());
        let mut events = Vec::new();
        Ollama.judge_plain(door, Operation::Chat, &body, Some(&mut events)).unwrap();
        let whole: Answer = events.into_iter().collect();
        prop_assert_eq!((whole.text(), whole.thinking()), (wanted.text(), wanted.thinking()));
        let calls = |it: &Answer| it.said.iter().filter(|it| matches!(it, Said::Call { .. })).cloned().collect::<Vec<_>>();
        prop_assert_eq!(calls(&whole), calls(&wanted));
        prop_assert_eq!(calls(&folded), calls(&wanted));
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_never_whole(
        door in door(), said in said(), reason in reason(), keep in 0.0..1.0_f64,
    ) {
        let mut sent = events(&said, 3);
        sent.push(Event::Finished { reason, stop: None });
        let stream = written(door, sent);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let mut at = ((stream.len() - 2) as f64 * keep) as usize;
        while !stream.is_char_boundary(at) {
            at -= 1;
        }
        prop_assert!(read(door, &stream[..at]).1.is_err());
    }

    #[test]
    fn done_never_comes_without_a_reason(door in door(), said in said(), finished in any::<bool>()) {
        let mut sent = events(&said, 2);
        if finished {
            sent.push(Event::Finished { reason: Reason::Length, stop: None });
        }
        let stream = written(door, sent);
        let lines: Vec<Value> = stream.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        let (last, before) = lines.split_last().unwrap();
        prop_assert_eq!(last["done_reason"].is_string(), finished);
        prop_assert_eq!(last["error"].is_string(), !finished);
        prop_assert!(before.iter().all(|it| it["done"] == json!(false) && it["done_reason"].is_null()));
    }

    #[test]
    fn unknown_fields_survive_unchanged(
        unknown in prop::collection::btree_map("[a-z\"\\\\é]{1,6}_", any::<i32>(), 0..6),
        model in "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{0,8}x",
        stream in prop::option::of(prop::option::of(any::<bool>())),
        wants_stream in any::<bool>(),
        truncate in prop::option::of(prop::option::of(any::<bool>())),
        older in any::<bool>(),
    ) {
        let mut body: Map<String, Value> = unknown.into_iter().map(|(name, it)| (name, it.into())).collect();
        body.insert(if older { "name" } else { "model" }.to_owned(), "a".into());
        body.insert("messages".to_owned(), json!([{"role": "user", "content": "hi", "x": 1}]));
        for (name, value) in [("stream", stream), ("truncate", truncate)] {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        }
        let bytes = Bytes::from(Value::Object(body.clone()).to_string());
        let request = Ollama.peek(Door::OllamaChat, &bytes).unwrap();
        let to = To { model: &model, stream: wants_stream, ask_usage: true, max_tokens: true, sold: None };
        let sent = Ollama.readdress(&request, &bytes, &to);
        let out: Map<String, Value> = serde_json::from_slice(&sent).unwrap();

        body.insert("model".to_owned(), model.clone().into());
        if older {
            body.insert("name".to_owned(), model.clone().into());
        }
        if stream.is_some() || !wants_stream {
            body.insert("stream".to_owned(), wants_stream.into());
        }
        body.insert("truncate".to_owned(), truncate.flatten().unwrap_or(false).into());
        prop_assert_eq!(out, body);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for door in Door::ALL {
            let body = Bytes::from(bytes.clone());
            let _ = Ollama.peek(door, &body);
            let _ = Ollama.understand(door, &body);
            let _ = super::warm(door, &body);
            let mut events = Vec::new();
            Ollama.reader(door, Operation::Chat).read(&body, Some(&mut events));
            Ollama.fold(door, Operation::Chat).add(&body);
            let _ = Ollama.judge_plain(door, Operation::Chat, &body, Some(&mut events));
        }
    }

    #[test]
    fn no_failure_is_more_than_a_line(text in ".{0,40}") {
        let line = Ollama.break_off(&Failure::BadRequest(text.clone()), "r", 3);
        let line = line.strip_suffix(b"\n").unwrap();
        prop_assert!(!line.contains(&b'\n'));
        let value: Value = serde_json::from_slice(line).unwrap();
        prop_assert_eq!(value, json!({"error": text}));
    }
}
