//! What Ollama 0.24.0 really answered, read as the relay reads it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde_json::Value;

use super::Ollama;
use crate::{
    dialect::{Dialect, Door, To},
    fault::Cause,
    generate::{Answer, Operation},
};

/// A recorded exchange at one of Ollama's own doors.
struct Recording {
    name: String,
    door: Door,
    request: Bytes,
    status: u16,
    is_stream: bool,
    body: Vec<u8>,
    clean: bool,
}

const CUT: &[u8] = b"[cut here by the recorder";

fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        let folder = folder.unwrap().path();
        if folder.file_name().is_some_and(|it| it.to_string_lossy().starts_with("ollama-0.24.0")) {
            files.extend(fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()));
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
    if !request.starts_with(b"POST") {
        return None;
    }
    let target = String::from_utf8(request.split(|it| *it == b' ').nth(1)?.to_vec()).ok()?;
    let door = Door::ALL.into_iter().find(|it| it.path() == target && it.path().starts_with("/api/"))?;
    let answer = fs::read(path).unwrap();
    let is_cut = |bytes: &[u8]| memchr::memmem::find(bytes, CUT).is_some();
    let (_, request) = split(&request)?;
    let (head, body) = split(&answer)?;
    let head = String::from_utf8(head.to_ascii_lowercase()).unwrap();
    if !head.contains("http/1.1") || is_cut(body) {
        return None;
    }
    let (body, clean) =
        if head.contains("transfer-encoding: chunked") { dechunk(body) } else { (body.to_vec(), true) };
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    Some(Recording {
        name: format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap()),
        door,
        request: Bytes::copy_from_slice(request),
        status: head.split(' ').nth(1)?.parse().ok()?,
        is_stream: head.contains("content-type: application/x-ndjson"),
        body,
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
        let Ok(size) = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap().trim(), 16) else {
            break;
        };
        if size == 0 {
            return (body, true);
        }
        let chunk = &rest[end + 2..];
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
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
            let mut reader = Ollama.reader(it.door, Operation::Chat);
            let mut fold = Ollama.fold(it.door, Operation::Chat);
            let (mut last, mut times) = (String::new(), 0);
            for line in it.body.split(|it| *it == b'\n').filter(|it| !it.is_empty()) {
                let judged = reader.read(line, Some(&mut events));
                fold.add(line);
                let word = format!("{:?}{}", judged.verdict, if judged.finished { "!" } else { "" });
                if word == last {
                    times += 1;
                } else {
                    if times > 0 {
                        write!(verdicts, "{last}*{times} ").unwrap();
                    }
                    (last, times) = (word, 1);
                }
            }
            write!(verdicts, "{last}*{times}").unwrap();
            let end = reader.end(it.clean);
            if end.is_ok() {
                let folded = fold.finish().unwrap();
                let mut again = Vec::new();
                let plain = Ollama.judge_plain(it.door, Operation::Chat, &folded, Some(&mut again)).unwrap();
                assert_eq!((plain.usage, plain.reason), (reader.usage(), reader.reason()), "{}", it.name);
                let (streamed, folded): (Answer, Answer) =
                    (events.iter().cloned().collect(), again.into_iter().collect());
                assert_eq!(streamed, folded, "{}", it.name);
            }
            end
        } else {
            Ollama.judge_plain(it.door, Operation::Chat, &it.body, Some(&mut events)).map(|_| ())
        };
        let answer: Answer = events.into_iter().collect();
        let usage = (answer.usage.input_tokens, answer.usage.output_tokens);
        let said = short(&answer.text());
        writeln!(shown, "{} {verdicts}\n  {end:?} {:?} {usage:?} {said:?}", it.name, answer.reason).unwrap();
        if let Some(vector) = answer.vectors.first() {
            writeln!(shown, "  {} vectors of {}", answer.vectors.len(), vector.len()).unwrap();
        }
        let broken = ["-killed/", "-terminated/", "-stopped/01"].iter().any(|part| it.name.contains(part))
            && it.name.contains("/01-stream");
        assert_eq!(end.is_err(), broken, "{}: {end:?}", it.name);
    }
    insta::assert_snapshot!("answers", shown);
}

#[test]
fn a_runner_that_dies_is_an_error_and_a_server_that_dies_an_early_end() {
    let ends: Vec<(String, Result<(), Cause>)> = recordings()
        .into_iter()
        .filter(|it| it.name.ends_with("/01-stream"))
        .map(|it| {
            let mut reader = Ollama.reader(it.door, Operation::Chat);
            for line in it.body.split(|it| *it == b'\n').filter(|it| !it.is_empty()) {
                reader.read(line, None);
            }
            (it.name.split('/').next().unwrap().to_owned(), reader.end(it.clean))
        })
        .collect();
    let of = |name: &str| ends.iter().find(|(it, _)| it == name).map(|(_, end)| *end);
    assert_eq!(of("ollama-0.24.0-killed"), Some(Err(Cause::EarlyEnd)));
    assert_eq!(of("ollama-0.24.0-terminated"), Some(Err(Cause::EarlyEnd)));
    assert_eq!(of("ollama-0.24.0-runner-killed"), Some(Err(Cause::ErrorEvent)));
}

/// What Ollama itself took must be taken here, what it called the caller's fault may not,
/// and every request can be understood and goes on with nothing lost.
#[test]
fn every_recorded_request_is_peeked_at() {
    let mut shown = String::new();
    for it in recordings() {
        let seen = match Ollama.peek(it.door, &it.request) {
            Ok(request) => {
                let to = To { model: "other", stream: false, ask_usage: true, max_tokens: false, sold: None };
                let mut sent: Value =
                    serde_json::from_slice(&Ollama.readdress(&request, &it.request, &to)).unwrap();
                let mut asked: Value = serde_json::from_slice(&it.request).unwrap();
                for name in ["model", "stream", "truncate"] {
                    for body in [&mut sent, &mut asked] {
                        body.as_object_mut().unwrap().remove(name);
                    }
                }
                assert_eq!(sent, asked, "{}", it.name);
                let head = &request.head;
                let understood = match Ollama.understand(it.door, &it.request) {
                    Ok(_) => String::new(),
                    Err(failure) => failure.message(),
                };
                format!("{:?} stream {} max {:?} {understood}", head.operation, head.stream, head.max_tokens)
            }
            Err(failure) => failure.message(),
        };
        let warm = if super::warm(it.door, &it.request).is_some() { " (nothing to answer)" } else { "" };
        writeln!(shown, "{} {}: {}{warm}", it.status, it.name, seen.trim_end()).unwrap();
    }
    insta::assert_snapshot!("requests", shown);
}
