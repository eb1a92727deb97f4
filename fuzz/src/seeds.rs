//! Writes what the targets begin with: the recorded answers of real servers, and
//! a request for everything that can be asked for.
//!
//! Told by `LOVABLE_FUZZ_SEEDS=RECORDINGS:INTO`. It is a target itself, which ends
//! before it begins: what is built with counters cannot be linked without a fuzzer.
#![no_main]

use std::{env, error::Error, fs, path::Path};

use lovable::dialect::Door;
use lovable_fuzz::doors;

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../../tests/it/dialect_example.rs"]
mod dialect_example;

/// The most of a recorded answer that is worth beginning with.
const LONGEST: usize = 8192;

libfuzzer_sys::fuzz_target!(init: write_and_end(), |data: &[u8]| {
    let _ = data;
});

fn write_and_end() {
    let said = env::var("LOVABLE_FUZZ_SEEDS").unwrap_or_default();
    let written = said.split_once(':').ok_or_else(|| "LOVABLE_FUZZ_SEEDS=RECORDINGS:INTO".into());
    let ended = written.and_then(|(recordings, into)| seeds(recordings, into));
    if let Err(error) = &ended {
        eprintln!("{error}");
    }
    std::process::exit(i32::from(ended.is_err()))
}

fn seeds(recordings: &str, into: &str) -> Result<(), Box<dyn Error>> {
    let into = Path::new(into);
    for door in Door::ALL {
        let id = door.dialect().id();
        for (at, (_, body)) in dialect_example::examples(door).iter().enumerate() {
            let name = format!("{}-{at}", door.path().replace('/', "_"));
            write(&into.join(format!("understand_{id}")), &name, first(door), body.to_string().as_bytes())?;
        }
    }
    for folder in fs::read_dir(recordings)? {
        let folder = folder?.path();
        let Ok(files) = fs::read_dir(&folder) else { continue };
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|it| it == "http") {
                seed(&path, into)?;
            }
        }
    }
    Ok(())
}

/// The byte that picks this door.
fn first(door: Door) -> u8 {
    let place = doors(door.dialect().id()).iter().position(|it| *it == door).unwrap_or_default();
    u8::try_from(place).unwrap_or_default()
}

/// One recorded exchange.
fn seed(path: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    let Ok(request) = fs::read(path.with_extension("request")) else { return Ok(()) };
    let asked = request.split(|it| *it == b' ').nth(1).unwrap_or_default();
    let Some(door) = Door::ALL.into_iter().find(|it| it.path().as_bytes() == asked) else { return Ok(()) };
    let answer = fs::read(path)?;
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(()) };
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), &answer[end + 4..]);
    let body = if head.contains("transfer-encoding: chunked") { dechunk(body) } else { body.to_vec() };
    let is_stream = head.contains("text/event-stream") || head.contains("x-ndjson");
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let name = format!("{folder}-{}", path.file_stem().unwrap_or_default().to_string_lossy());
    let first = first(door) | if is_stream { 0 } else { 16 };
    let body = &body[..body.len().min(LONGEST)];
    write(&into.join(format!("read_{}", door.dialect().id())), &name, first, body)
}

fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = body.windows(2).position(|it| it == b"\r\n") {
        let length =
            std::str::from_utf8(&body[..line]).ok().and_then(|it| usize::from_str_radix(it, 16).ok());
        let Some(length) = length.filter(|it| *it > 0) else { break };
        body = &body[line + 2..];
        out.extend_from_slice(&body[..length.min(body.len())]);
        body = body.get(length + 2..).unwrap_or_default();
    }
    out
}

fn write(folder: &Path, name: &str, first: u8, body: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join(name), [&[first], body].concat())?)
}
