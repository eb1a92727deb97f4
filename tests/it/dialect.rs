//! Every answer that was recorded from a real server, read as the relay reads it.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use bytes::Bytes;
use lovable::{
    dialect::{
        Door, Verdict,
        frames::{Cutter, FrameData},
        openai::{Fold, Reader, judge_plain, peek},
    },
    fault::Cause,
    generate::Operation,
};
use serde_json::Value;

/// A recorded exchange, its body freed from HTTP's framing.
struct Recording {
    name: String,
    operation: Operation,
    request: Bytes,
    status: u16,
    is_stream: bool,
    body: Bytes,
    /// Whether the body ended as its framing promised.
    clean: bool,
}

fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut all = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        let folder = folder.unwrap().path();
        let Ok(files) = fs::read_dir(&folder) else { continue };
        for file in files {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|it| it == "http") {
                all.extend(read(&path));
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn read(path: &Path) -> Option<Recording> {
    let request = fs::read(path.with_extension("request")).ok()?;
    let operation = match request.split(|it| *it == b' ').nth(1)? {
        b"/v1/chat/completions" => Operation::Chat,
        b"/v1/completions" => Operation::Complete,
        b"/v1/embeddings" => Operation::Embed,
        _ => return None,
    };
    if !request.starts_with(b"POST") {
        return None;
    }
    let (_, request) = split(&request)?;
    let answer = fs::read(path).unwrap();
    let is_cut = |bytes: &[u8]| memchr::memmem::find(bytes, CUT).is_some();
    if is_cut(request) {
        return None;
    }
    let (head, body) = split(&answer)?;
    let head = String::from_utf8(head.to_ascii_lowercase()).unwrap();
    let is_stream = head.contains("content-type: text/event-stream");
    let (body, clean) = if is_cut(body) {
        if !is_stream {
            return None;
        }
        (mend(body), body.ends_with(b"0\r\n\r\n"))
    } else if head.contains("transfer-encoding: chunked") {
        dechunk(body)
    } else {
        let length = head.split("content-length: ").nth(1).and_then(|it| it.split("\r\n").next());
        (body.to_vec(), length.is_none_or(|it| it == body.len().to_string()))
    };
    let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    Some(Recording {
        name: format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap()),
        operation,
        request: Bytes::copy_from_slice(request),
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        is_stream,
        body: body.into(),
        clean,
    })
}

fn door(operation: Operation) -> Door {
    match operation {
        Operation::Chat => Door::OpenAiChat,
        Operation::Complete => Door::OpenAiComplete,
        Operation::Embed => Door::OpenAiEmbed,
    }
}

fn split(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = message.windows(4).position(|it| it == b"\r\n\r\n")?;
    Some((&message[..end + 2], &message[end + 4..]))
}

const CUT: &[u8] = b"[cut here by the recorder";

/// The whole events of a body whose middle was left out.
fn mend(body: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = body.split(|it| *it == b'\n').collect();
    let cut = lines.iter().position(|it| it.starts_with(CUT)).unwrap();
    let mut out = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with(b"data: ") && number.abs_diff(cut) > 1 {
            out.extend_from_slice(line.trim_ascii_end());
            out.extend_from_slice(b"\n\n");
        }
    }
    out
}

fn dechunk(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    loop {
        let Some(line) = body.windows(2).position(|it| it == b"\r\n") else { return (out, false) };
        let length = std::str::from_utf8(&body[..line]).unwrap();
        let length = usize::from_str_radix(length.split(';').next().unwrap().trim(), 16).unwrap();
        body = &body[line + 2..];
        if length == 0 {
            return (out, true);
        }
        let here = length.min(body.len());
        out.extend_from_slice(&body[..here]);
        if body.len() < length + 2 {
            return (out, false);
        }
        body = &body[length + 2..];
    }
}

/// Runs of the same verdict, and how it ended.
struct Reading {
    verdicts: String,
    end: Result<(), Cause>,
    folded: Result<Value, Cause>,
    usage: String,
}

fn read_stream(recording: &Recording, chunk: usize) -> Reading {
    let mut cutter = Cutter::new(8 << 20);
    let mut reader = Reader::new(recording.operation);
    let mut fold = Fold::new(recording.operation);
    let mut runs: Vec<(String, usize)> = Vec::new();
    let mut broken = false;
    for piece in recording.body.chunks(chunk.max(1)) {
        cutter.push(recording.body.slice_ref(piece));
        for frame in cutter.by_ref() {
            let shown = match frame.unwrap().data {
                FrameData::Event(data) => {
                    let judged = reader.judge(&data);
                    if !matches!(judged.verdict, Verdict::Error | Verdict::Unreadable) {
                        fold.add(&data);
                    }
                    format!("{:?}{}", judged.verdict, if judged.finished { "!" } else { "" })
                }
                FrameData::Comment => "Comment".to_owned(),
                FrameData::Broken => {
                    broken = true;
                    "Broken".to_owned()
                }
            };
            match runs.last_mut() {
                Some((last, count)) if *last == shown => *count += 1,
                _ => runs.push((shown, 1)),
            }
        }
    }
    let mut verdicts = String::new();
    for (verdict, count) in runs {
        let times = if count > 1 { format!("×{count}") } else { String::new() };
        write!(verdicts, "{verdict}{times} ").unwrap();
    }
    if cutter.rest() > 0 {
        write!(verdicts, "({} bytes torn)", cutter.rest()).unwrap();
    }
    let torn = cutter.rest() > 0 || broken;
    let end = if torn { Err(Cause::Unreadable) } else { reader.end(recording.clean) };
    Reading {
        verdicts,
        end,
        folded: fold.finish().map(|it| serde_json::from_slice(&it).unwrap()),
        usage: format!("{:?}/{:?}", reader.usage().input_tokens, reader.usage().output_tokens),
    }
}

fn said(answer: &Value) -> String {
    let mut out = Vec::new();
    for choice in answer["choices"].as_array().into_iter().flatten() {
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
        out.push(format!("{:?} {}", text.unwrap_or("?"), choice["finish_reason"]));
    }
    out.join(" | ")
}

#[test]
fn every_recorded_stream_is_read_for_what_it_is() {
    let mut shown = String::new();
    let mut ends = BTreeMap::new();
    for recording in recordings() {
        if !recording.is_stream || recording.status != 200 {
            continue;
        }
        let whole = read_stream(&recording, recording.body.len());
        let bytewise = read_stream(&recording, 1);
        assert_eq!(whole.verdicts, bytewise.verdicts, "{}", recording.name);
        writeln!(shown, "{}\n  {}", recording.name, whole.verdicts.trim_end()).unwrap();
        writeln!(shown, "  {:?}, usage {}", whole.end, whole.usage).unwrap();
        if let (Ok(()), Ok(folded)) = (&whole.end, &whole.folded) {
            let mut told = said(folded);
            if told.len() > 200 {
                told = format!("{}…{}", &told[..120], &told[told.len() - 60..]);
            }
            writeln!(shown, "  {told}").unwrap();
            let plain = judge_plain(recording.operation, folded.to_string().as_bytes());
            assert!(plain.is_ok(), "{}: {plain:?}", recording.name);
        }
        ends.insert(recording.name, whole.end);
    }
    insta::assert_snapshot!("streams", shown);

    for (name, end) in ends {
        let broken = ["-killed/", "-terminated/", "-killed-openai/"].iter().any(|it| name.contains(it))
            || name == "llama-cpp-python-0.3.36/52-error-context-overflow-stream";
        assert_eq!(end.is_err(), broken, "{name}: {end:?}");
    }
}

#[test]
fn every_recorded_plain_answer_is_read_for_what_it_is() {
    let mut shown = String::new();
    for recording in recordings() {
        if recording.is_stream || recording.status != 200 {
            continue;
        }
        let judged = match judge_plain(recording.operation, &recording.body) {
            Ok(plain) => {
                let usage = plain.usage;
                format!("{:?}, usage {:?}/{:?}", plain.reason, usage.input_tokens, usage.output_tokens)
            }
            Err(cause) => format!("error: {cause:?}"),
        };
        writeln!(shown, "{}\n  {judged}", recording.name).unwrap();
    }
    insta::assert_snapshot!("plain", shown);
}

#[test]
fn every_recorded_request_is_peeked_at() {
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    for recording in recordings() {
        let case = recording.name.split('/').nth(1).unwrap().to_owned();
        let seen = match peek(door(recording.operation), &recording.request) {
            Ok(request) => {
                let needs = request.head.needs;
                format!(
                    "stream {} max {:?} usage {} tools {} vision {}",
                    request.head.stream,
                    request.head.max_tokens,
                    request.asks_usage,
                    needs.tools,
                    needs.vision
                )
            }
            Err(failure) => failure.message(),
        };
        shown.entry(case).or_insert(seen);
    }
    let lines: Vec<String> = shown.iter().map(|(case, seen)| format!("{case}: {seen}")).collect();
    insta::assert_snapshot!("requests", lines.join("\n"));
}
