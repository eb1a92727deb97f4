//! What real servers answered to `/v1/messages`, read as the relay reads it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::Anthropic;
use crate::{
    dialect::{
        Dialect, Door, To,
        frames::{Cutter, FrameData},
    },
    generate::{Answer, Event, Operation},
};

/// A recorded exchange.
struct Recording {
    name: String,
    request: Bytes,
    status: u16,
    is_stream: bool,
    body: Bytes,
    clean: bool,
}

fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        if let Ok(inside) = fs::read_dir(folder.unwrap().path()) {
            files.extend(inside.map(|it| it.unwrap().path()));
        }
    }
    files.sort();
    files
        .iter()
        .filter(|it| it.extension().is_some_and(|it| it == "http"))
        .filter_map(|it| record(it))
        .collect()
}

fn record(path: &Path) -> Option<Recording> {
    let request = fs::read(path.with_extension("request")).ok()?;
    if !request.starts_with(b"POST /v1/messages HTTP") {
        return None;
    }
    let answer = fs::read(path).unwrap();
    let (_, request) = split(&request)?;
    let (head, body) = split(&answer)?;
    let head = String::from_utf8(head.to_ascii_lowercase()).unwrap();
    let (body, clean) =
        if head.contains("transfer-encoding: chunked") { dechunk(body) } else { (body.to_vec(), true) };
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    Some(Recording {
        name: format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap()),
        request: Bytes::copy_from_slice(request),
        status: head.split(' ').nth(1)?.parse().ok()?,
        is_stream: head.contains("content-type: text/event-stream"),
        body: body.into(),
        clean,
    })
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    Some((&bytes[..at], &bytes[at + 4..]))
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap().trim(), 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let chunk = &rest[end + 2..];
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

#[test]
fn every_recorded_answer_is_read_for_what_it_is() {
    let mut shown = String::new();
    for it in recordings() {
        if it.status != 200 {
            continue;
        }
        let mut events = Vec::new();
        let mut verdicts = String::new();
        let end = if it.is_stream {
            let mut reader = Anthropic.reader(Door::Messages, Operation::Chat);
            let mut fold = Anthropic.fold(Door::Messages, Operation::Chat);
            let mut cutter = Cutter::new(1 << 20);
            cutter.push(it.body.clone());
            for frame in cutter.by_ref() {
                let FrameData::Event(data) = frame.unwrap().data else { continue };
                write!(verdicts, " {:?}", reader.read(&data, Some(&mut events)).verdict).unwrap();
                fold.add(&data);
            }
            let end = reader.end(it.clean && cutter.rest() == 0);
            if end.is_ok() {
                let folded = fold.finish().unwrap();
                let mut again = Vec::new();
                let plain = Anthropic.judge_plain(Door::Messages, Operation::Chat, &folded, Some(&mut again));
                let plain = plain.unwrap();
                assert_eq!((plain.usage, plain.reason), (reader.usage(), reader.reason()), "{}", it.name);
                let answer = |events: Vec<Event>| events.into_iter().collect::<Answer>();
                assert_eq!(answer(events.clone()), answer(again), "{}", it.name);
            }
            end
        } else {
            Anthropic.judge_plain(Door::Messages, Operation::Chat, &it.body, Some(&mut events)).map(|_| ())
        };
        let answer: Answer = events.into_iter().collect();
        let (usage, said) = (answer.usage, answer.text());
        writeln!(shown, "{}{verdicts}\n  {end:?} {:?} {said:?}", it.name, answer.reason).unwrap();
        let counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens);
        writeln!(shown, "  {counts:?}").unwrap();
        assert_eq!(end.is_err(), it.name.contains("-killed-messages/01-"), "{}: {end:?}", it.name);
    }
    insta::assert_snapshot!("answers", shown);
}

#[test]
fn every_recorded_request_is_understood_or_was_refused_there_too() {
    for it in recordings() {
        let peeked = Anthropic.peek(Door::Messages, &it.request);
        assert!(peeked.is_ok() || it.status == 400, "{}: {peeked:?}", it.name);
        let Ok(request) = peeked else { continue };
        let to =
            To { model: &request.head.model, stream: false, ask_usage: true, max_tokens: false, sold: None };
        let meaning = Anthropic.understand(Door::Messages, &it.request).unwrap();
        let asked = Anthropic.ask(Door::Messages, &meaning, &to).unwrap();
        let again = Anthropic.understand(Door::Messages, &asked.body).unwrap();
        assert_eq!(again, meaning, "{}", it.name);
    }
}
