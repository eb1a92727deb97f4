//! What holds for every dialect: what is written can be read, however it is
//! cut, and what nobody here knows goes through.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lovable::{
    dialect::{
        Door, Framing, To, Verdict, Voice,
        frames::{Cutter, FrameData},
    },
    fault::Cause,
    generate::{Answer, Event, Operation, Reason, Said, Usage},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::dialect_example::{operation, smallest};

/// The doors whose answers may come as a stream.
const STREAMING: [Door; 6] = [
    Door::OpenAiChat,
    Door::OpenAiComplete,
    Door::Responses,
    Door::Messages,
    Door::OllamaChat,
    Door::OllamaGenerate,
];

fn voice(door: Door) -> Voice {
    Voice {
        id: "r1".to_owned(),
        model: "m".to_owned(),
        at_ms: 1_764_000_000_000,
        waited: Duration::from_millis(250),
        asks_usage: true,
        operation: operation(door),
        request: Bytes::from(smallest(door).to_string()),
    }
}

fn written(door: Door, events: &[Event]) -> Bytes {
    let mut writer = door.dialect().writer(door, voice(door));
    let mut out = BytesMut::new();
    for event in events {
        writer.write(event.clone(), &mut out);
    }
    writer.finish(std::time::Duration::ZERO, &mut out);
    out.freeze()
}

/// The frames of a stream that came in these chunks.
fn frames(framing: Framing, chunks: &[&[u8]]) -> Vec<Bytes> {
    let mut cutter = Cutter::of(framing, 8 << 20);
    let mut frames = Vec::new();
    for chunk in chunks {
        cutter.push(Bytes::copy_from_slice(chunk));
        for frame in cutter.by_ref() {
            match frame.unwrap().data {
                FrameData::Event(data) => frames.push(data),
                FrameData::Comment => {}
                FrameData::Broken => panic!("a broken frame"),
            }
        }
    }
    assert_eq!(cutter.rest(), 0, "all of it is frames");
    frames
}

fn read(door: Door, chunks: &[&[u8]]) -> (Vec<Event>, Result<(), Cause>) {
    let dialect = door.dialect();
    let mut reader = dialect.reader(door, operation(door));
    let mut events = Vec::new();
    for data in frames(dialect.framing(), chunks) {
        reader.read(&data, Some(&mut events));
    }
    let end = reader.end(true);
    (events, end)
}

/// An answer as every language tells it: ids and proofs are each language's own,
/// arguments are compared for what they say.
fn told(answer: &Answer) -> (Vec<Said>, Usage, Option<Reason>) {
    let mut said: Vec<Said> = Vec::new();
    for it in &answer.said {
        let it = match it.clone() {
            Said::Thinking { text, .. } => Said::Thinking { text, signature: None },
            Said::Call { index, name, arguments, .. } => {
                let arguments: Value = serde_json::from_str(&arguments).unwrap();
                Said::Call { index, id: None, name, arguments: arguments.to_string() }
            }
            other => other,
        };
        match (said.last_mut(), it) {
            (Some(Said::Text(text)), Said::Text(more)) => text.push_str(&more),
            (Some(Said::Thinking { text, .. }), Said::Thinking { text: more, .. }) => text.push_str(&more),
            (_, it) => said.push(it),
        }
    }
    (said, answer.usage, answer.reason)
}

/// What may be said through this door.
fn said(door: Door) -> BoxedStrategy<Vec<Said>> {
    let text = "[a-zé\"\\\\\n\r\u{2028}\u{1f600} ]{1,8}";
    let arguments =
        prop::collection::btree_map("[a-z]{1,3}", any::<i32>(), 0..3).prop_map(|it| json!(it).to_string());
    let texts = text.prop_map(Said::Text);
    let thoughts = text.prop_map(|text| Said::Thinking { text, signature: None });
    let calls = (prop::option::of("call_[0-9]{3}"), "[a-z_]{1,6}", arguments)
        .prop_map(|(id, name, arguments)| Said::Call { index: 0, id, name, arguments });
    match door {
        Door::OpenAiComplete => prop::collection::vec(texts, 0..8).boxed(),
        _ => prop::collection::vec(prop_oneof![texts, thoughts, calls], 0..8).boxed(),
    }
}

/// The events of an answer, texts and arguments cut into pieces of `size` characters.
fn events(said: &[Said], size: usize, usage: Usage, reason: Reason) -> Vec<Event> {
    let pieces = |text: &str| -> Vec<String> {
        text.chars().collect::<Vec<_>>().chunks(size).map(|it| it.iter().collect()).collect()
    };
    let (mut events, mut index) = (Vec::new(), 0);
    for said in said {
        match said {
            Said::Text(text) | Said::Refusal(text) => {
                events.extend(pieces(text).into_iter().map(Event::Text))
            }
            Said::Thinking { text, .. } => events.extend(pieces(text).into_iter().map(Event::Thinking)),
            Said::Call { id, name, arguments, .. } => {
                events.push(Event::Call { index, id: id.clone(), name: name.clone() });
                let pieces = pieces(arguments).into_iter();
                events.extend(pieces.map(|text| Event::Arguments { index, text }));
                index += 1;
            }
        }
    }
    events.push(Event::Usage(usage));
    events.push(Event::Finished { reason, stop: None });
    events
}

/// What an answer of these events is after its journey.
fn expected(events: &[Event]) -> (Vec<Said>, Usage, Option<Reason>) {
    let answer: Answer = events.iter().cloned().collect();
    let (said, usage, reason) = told(&answer);
    let reason = match reason {
        Some(Reason::Stop | Reason::ToolCalls) if answer.calls() => Reason::ToolCalls,
        Some(Reason::Length) => Reason::Length,
        _ => Reason::Stop,
    };
    (said, usage, Some(reason))
}

fn usage() -> impl Strategy<Value = Usage> {
    (1_u64..9, 1_u64..9).prop_map(|(input, output)| Usage {
        input_tokens: Some(input),
        output_tokens: Some(output),
        ..Usage::default()
    })
}

fn door_and_said() -> impl Strategy<Value = (Door, Vec<Said>)> {
    prop::sample::select(STREAMING.to_vec()).prop_flat_map(|door| (Just(door), said(door)))
}

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(vec![Reason::Stop, Reason::Length, Reason::ToolCalls])
}

/// Pieces of `stream` that end at these places.
fn cut<'a>(stream: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|it| it.index(stream.len() + 1)).collect();
    places.sort_unstable();
    let mut from = 0;
    let mut chunks = Vec::new();
    for to in places {
        chunks.push(&stream[from..to]);
        from = to;
    }
    chunks.push(&stream[from..]);
    chunks
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_a_dialect_writes_it_reads_as_the_same_answer_however_it_is_cut(
        (door, said) in door_and_said(),
        size in 1_usize..6,
        usage in usage(),
        reason in reason(),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let events = events(&said, size, usage, reason);
        let stream = written(door, &events);
        let (heard, end) = read(door, &[&stream]);
        prop_assert_eq!(end, Ok(()));
        let answer: Answer = heard.iter().cloned().collect();
        prop_assert_eq!(told(&answer), expected(&events));

        prop_assert_eq!(read(door, &cut(&stream, &places)), (heard.clone(), Ok(())));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(read(door, &bytes), (heard, Ok(())));
    }

    #[test]
    fn no_stream_is_whole_before_its_end(
        (door, said) in door_and_said(),
        usage in usage(),
        place in any::<prop::sample::Index>(),
    ) {
        let stream = written(door, &events(&said, 3, usage, Reason::Stop));
        let dialect = door.dialect();
        let mut cutter = Cutter::of(dialect.framing(), 8 << 20);
        cutter.push(stream.slice(..place.index(stream.len())));
        let mut reader = dialect.reader(door, operation(door));
        for frame in cutter.by_ref() {
            if let FrameData::Event(data) = frame.unwrap().data {
                reader.read(&data, None);
            }
        }
        prop_assert!(reader.end(false).is_err());
    }

    #[test]
    fn a_whole_answer_is_read_as_what_was_written((door, said) in door_and_said(), usage in usage(), reason in reason()) {
        let events = events(&said, 3, usage, reason);
        let answer: Answer = events.iter().cloned().collect();
        let dialect = door.dialect();
        let body = dialect.whole(door, &answer, &voice(door));
        let mut heard = Vec::new();
        let plain = dialect.judge_plain(door, operation(door), &body, Some(&mut heard)).unwrap();
        let answer: Answer = heard.into_iter().collect();
        let (mut said, usage, reason) = expected(&events);
        let (mut read, ..) = told(&answer);
        // In what order a whole answer has thoughts, texts and calls is each language's own.
        said.sort_by_key(sort);
        read.sort_by_key(sort);
        prop_assert_eq!(joined(read), joined(said));
        prop_assert_eq!((plain.usage, answer.usage), (usage, usage));
        prop_assert_eq!(answer.reason, reason);
    }

    #[test]
    fn a_folded_stream_is_the_whole_answer((door, said) in door_and_said(), usage in usage(), reason in reason()) {
        let events = events(&said, 3, usage, reason);
        let dialect = door.dialect();
        let mut fold = dialect.fold(door, operation(door));
        for data in frames(dialect.framing(), &[&written(door, &events)]) {
            fold.add(&data);
        }
        prop_assert!(!fold.is_broken());
        let body = fold.finish().unwrap();
        let mut heard = Vec::new();
        let plain = dialect.judge_plain(door, operation(door), &body, Some(&mut heard)).unwrap();
        let answer: Answer = heard.into_iter().collect();
        let (mut said, usage, _) = expected(&events);
        let (mut read, ..) = told(&answer);
        said.sort_by_key(sort);
        read.sort_by_key(sort);
        prop_assert_eq!(joined(read), joined(said));
        prop_assert_eq!(plain.usage, usage);
    }

    #[test]
    fn unknown_fields_of_a_request_pass_through(
        door in prop::sample::select(Door::ALL.to_vec()),
        unknown in prop::collection::hash_map("[a-z\"\\\\é]{1,6}_", value(), 0..6),
        stream in any::<bool>(),
    ) {
        let mut body: Map<String, Value> = smallest(door).as_object().unwrap().clone();
        body.extend(unknown.clone());
        let bytes = Bytes::from(Value::Object(body.clone()).to_string());
        let dialect = door.dialect();
        let request = dialect.peek(door, &bytes).unwrap();
        let to = To { model: "other", stream, ask_usage: true, max_tokens: true, sold: None };
        let sent: Map<String, Value> =
            serde_json::from_slice(&dialect.readdress(&request, &bytes, &to)).unwrap();
        for (name, value) in &body {
            if !matches!(name.as_str(), "model" | "stream") {
                prop_assert_eq!(sent.get(name), Some(value), "{}", name);
            }
        }
        prop_assert_eq!(&sent["model"], "other");
    }

    #[test]
    fn no_bytes_make_a_dialect_panic(
        door in prop::sample::select(Door::ALL.to_vec()),
        pieces in prop::collection::vec(piece(), 0..24),
    ) {
        let bytes = Bytes::from(pieces.concat());
        let dialect = door.dialect();
        if let Ok(request) = dialect.peek(door, &bytes) {
            let to = To { model: "m", stream: true, ask_usage: true, max_tokens: true, sold: None };
            dialect.readdress(&request, &bytes, &to);
        }
        let _ = dialect.understand(door, &bytes);
        let _ = dialect.judge_plain(door, operation(door), &bytes, Some(&mut Vec::new()));
        let mut reader = dialect.reader(door, operation(door));
        let mut fold = dialect.fold(door, operation(door));
        for line in bytes.split(|it| *it == b'\n') {
            let judged = reader.read(line, Some(&mut Vec::new()));
            if !matches!(judged.verdict, Verdict::Error | Verdict::Unreadable) {
                fold.add(line);
            }
        }
        let _ = (reader.end(true), fold.finish());
    }
}

fn sort(said: &Said) -> u8 {
    match said {
        Said::Thinking { .. } => 0,
        Said::Text(_) | Said::Refusal(_) => 1,
        Said::Call { .. } => 2,
    }
}

/// Neighbours of one sort as one.
fn joined(said: Vec<Said>) -> Vec<Said> {
    let mut answer = Answer::default();
    answer.said = said;
    told(&answer).0
}

/// Words that all these languages are made of.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\n",
        "null",
        "true",
        "5",
        "-1",
        "\"\"",
        "\"a\"",
        "\"model\":\"m\"",
        "\"messages\":[",
        "\"role\":\"user\"",
        "\"content\":",
        "\"choices\":[{\"index\":0,\"delta\":{",
        "\"type\":",
        "\"tool_calls\":[{",
        "\"function\":{",
        "\"name\":",
        "\"arguments\":",
        "\"id\":",
        "\"index\":",
        "\"finish_reason\":\"stop\"",
        "\"usage\":{",
        "\"input\":",
        "\"prompt\":",
        "\"done\":true",
        "\"message\":{",
        "\"response\":",
        "\"thinking\":",
        "\"images\":[",
        "\"embedding\":[",
        "\"embeddings\":[[",
        "\"item\":{",
        "\"output\":[",
        "\"message_start\"",
        "\"content_block_start\"",
        "\"content_block_delta\"",
        "\"response.created\"",
        "\"response.output_item.added\"",
        "\"output_index\":0",
        "\"response.completed\"",
        "\"text\"",
        "\"tool_use\"",
        "\"error\":",
        "\"data\":[",
        "[DONE]",
        "\"options\":{",
        "1e400",
    ];
    prop_oneof![
        9 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

#[test]
fn vectors_go_through_every_door_that_has_them() {
    let vectors = [vec![0.1_f32, -2.5], vec![1.0, 3.0e-9]];
    for door in [Door::OpenAiEmbed, Door::OllamaEmbed, Door::OllamaEmbeddings] {
        // The older of Ollama's doors gives one.
        let vectors = if door == Door::OllamaEmbeddings { &vectors[..1] } else { &vectors[..] };
        let answer: Answer = vectors.iter().cloned().map(Event::Vector).collect();
        let body = door.dialect().whole(door, &answer, &voice(door));
        let mut heard = Vec::new();
        door.dialect().judge_plain(door, Operation::Embed, &body, Some(&mut heard)).unwrap();
        let answer: Answer = heard.into_iter().collect();
        assert_eq!(answer.vectors, vectors, "{door}");
    }
}
