//! What the targets have in common: the first byte of the input picks the door,
//! the rest is what came over the wire.
//!
//! Beside "it does not panic" each target holds what must be so for any bytes:
//! what was judged to be whole can be told in every language, and is whole
//! again when it is read there; what was understood and could be asked is a
//! request that can be read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lovable::{
    dialect::{
        Door, To, Verdict, Voice,
        frames::{Cutter, FrameData},
    },
    generate::{Answer, Event, Meaning, Operation},
};

/// The largest frame that is taken.
const CAP: usize = 1 << 20;

/// What is wanted at this door.
pub fn operation(door: Door) -> Operation {
    match door {
        Door::OpenAiComplete => Operation::Complete,
        Door::OpenAiEmbed | Door::OllamaEmbed | Door::OllamaEmbeddings => Operation::Embed,
        _ => Operation::Chat,
    }
}

/// The doors of a dialect.
pub fn doors(dialect: &str) -> Vec<Door> {
    Door::ALL.into_iter().filter(|it| it.dialect().id() == dialect).collect()
}

/// Takes the first byte for a door, and says whether it is odd in the upper half.
fn choose<'a>(dialect: &str, data: &'a [u8]) -> Option<(Door, bool, &'a [u8])> {
    let (first, rest) = data.split_first()?;
    let doors = doors(dialect);
    let door = doors[usize::from(first & 15) % doors.len()];
    Some((door, first & 16 != 0, rest))
}

/// A server's answer: a stream, or with a bit of the first byte a whole body.
pub fn read(dialect: &str, data: &[u8]) {
    let Some((door, is_whole, data)) = choose(dialect, data) else { return };
    if is_whole {
        read_whole(door, data);
    } else {
        read_stream(door, data);
    }
}

fn read_whole(door: Door, data: &[u8]) {
    let (dialect, operation) = (door.dialect(), operation(door));
    let mut events = Vec::new();
    let judged = dialect.judge_plain(door, operation, data, None);
    let told = dialect.judge_plain(door, operation, data, Some(&mut events));
    // Looking deeper may find more wrong, and never less.
    assert!(judged.is_ok() || told.is_err(), "{door}");
    if told.is_ok() {
        tell(operation, &events);
    }
}

fn read_stream(door: Door, data: &[u8]) {
    let (dialect, operation) = (door.dialect(), operation(door));
    let mut cutter = Cutter::of(dialect.framing(), CAP);
    cutter.push(Bytes::copy_from_slice(data));
    let mut judge = dialect.reader(door, operation);
    let mut reader = dialect.reader(door, operation);
    let mut fold = dialect.fold(door, operation);
    let (mut events, mut broken) = (Vec::new(), false);
    for frame in cutter.by_ref() {
        let Ok(frame) = frame else { return };
        match frame.data {
            FrameData::Event(data) => {
                judge.read(&data, None);
                let judged = reader.read(&data, Some(&mut events));
                if matches!(judged.verdict, Verdict::Error | Verdict::Unreadable) {
                    broken = true;
                    break;
                }
                fold.add(&data);
            }
            FrameData::Comment => {}
            FrameData::Broken => broken = true,
        }
    }
    if broken || reader.end(true).is_err() {
        return;
    }
    assert!(judge.end(true).is_ok(), "{door}: what can be translated can pass");
    let finished = events.iter().filter(|it| matches!(it, Event::Finished { .. })).count();
    assert!(finished <= 1, "{door}: it ends once");
    let _ = fold.finish();
    tell(operation, &events);
}

/// Tells an answer in all languages, as a stream and whole, and reads it there.
fn tell(operation: Operation, events: &[Event]) {
    let answer: Answer = events.iter().cloned().collect();
    for door in Door::ALL.into_iter().filter(|it| self::operation(*it) == operation) {
        let (dialect, voice) = (door.dialect(), voice(door));
        let body = dialect.whole(door, &answer, &voice);
        if operation == Operation::Embed {
            continue;
        }
        // An answer without a reason was never whole; other choices may have had one.
        if answer.reason.is_none() {
            continue;
        }
        let judged = dialect.judge_plain(door, operation, &body, Some(&mut Vec::new()));
        assert!(
            judged.is_ok(),
            "{door} cannot read its own answer: {judged:?}\n{}",
            String::from_utf8_lossy(&body)
        );
        let mut writer = dialect.writer(door, voice);
        let mut out = BytesMut::new();
        for event in events {
            writer.write(event.clone(), &mut out);
        }
        writer.finish(std::time::Duration::ZERO, &mut out);
        let mut cutter = Cutter::of(dialect.framing(), usize::MAX);
        cutter.push(out.clone().freeze());
        let mut reader = dialect.reader(door, operation);
        for frame in cutter.by_ref() {
            if let Ok(FrameData::Event(data)) = frame.map(|it| it.data) {
                reader.read(&data, Some(&mut Vec::new()));
            }
        }
        let end = reader.end(true);
        assert!(end.is_ok(), "{door} cannot read its own stream: {end:?}\n{}", String::from_utf8_lossy(&out));
    }
}

/// A caller's request.
pub fn understand(dialect: &str, data: &[u8]) {
    let Some((door, _, data)) = choose(dialect, data) else { return };
    let (dialect, body) = (door.dialect(), Bytes::copy_from_slice(data));
    let to = To { model: "other", stream: true, ask_usage: true, max_tokens: true, sold: None };
    let Ok(request) = dialect.peek(door, &body) else { return };
    let sent = dialect.readdress(&request, &body, &to);
    assert!(dialect.peek(door, &sent).is_ok(), "{door}: what passes can be read");
    let Ok(meaning) = dialect.understand(door, &body) else { return };
    for other in Door::ALL.into_iter().filter(|it| fits(*it, &meaning)) {
        if let Ok(asked) = other.dialect().ask(other, &meaning, &to) {
            let peeked = other.dialect().peek(other, &asked.body);
            assert!(
                peeked.is_ok(),
                "{door} to {other}: {:?}\n{}",
                peeked.err(),
                String::from_utf8_lossy(&asked.body)
            );
        }
    }
}

fn fits(door: Door, meaning: &Meaning) -> bool {
    let operation = match meaning {
        Meaning::Chat(_) => Operation::Chat,
        Meaning::Complete(_) => Operation::Complete,
        Meaning::Embed(_) => Operation::Embed,
    };
    self::operation(door) == operation || door == Door::OllamaGenerate && operation == Operation::Complete
}

fn voice(door: Door) -> Voice {
    Voice {
        id: "r1".to_owned(),
        model: "m".to_owned(),
        at_ms: 0,
        waited: Duration::ZERO,
        asks_usage: true,
        operation: operation(door),
        request: Bytes::from_static(b"{}"),
    }
}
