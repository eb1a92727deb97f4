//! The rooms import one way, and the pure ones stay pure.

use std::{collections::BTreeMap, fs, path::Path};

/// One total order: a room may use those before it. A total order holds no cycle.
const ROOMS: &[&str] = &[
    // Layers 0 to 2: pure.
    "server",
    "fault",
    "generate",
    "dialect",
    "kind",
    "registry",
    "route",
    "failover",
    "resume",
    "queue",
    "spending",
    "stats",
    "ledger",
    "metrics",
    // Edges, door, faces.
    "hardware",
    "wire",
    "folder",
    "store",
    "upstream",
    "otlp",
    "scan",
    "simulate",
    "housekeeping",
    "postgres",
    "relay",
    "client",
    "config",
    "service",
    "api",
    "daemon",
    "cli",
];
const LAST_PURE: &str = "metrics";
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "reqwest",
    "sled",
    "std::fs",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
    "fastrand",
    "rand::",
];

fn place(room: &str) -> usize {
    ROOMS
        .iter()
        .position(|it| *it == room)
        .unwrap_or_else(|| panic!("the room `{room}` has no place in ROOMS"))
}

/// Every source file with the room it belongs to.
fn sources() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|it| it != "rs") {
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let room = name.split(['/', '.']).next().unwrap().to_owned();
            if room != "lib" && room != "bin" {
                found.push((name, room, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Rooms named after `crate::`, those in a braced list too.
fn imports(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            // The first word at depth one of each entry is a room.
            let (mut depth, mut word, mut fresh) = (1, String::new(), true);
            for char in list.chars() {
                match char {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => fresh = true,
                    char if depth == 1 && fresh && (char.is_alphanumeric() || char == '_') => {
                        word.push(char);
                        continue;
                    }
                    char if char.is_whitespace() && word.is_empty() => continue,
                    _ => {}
                }
                if !word.is_empty() {
                    rooms.push(std::mem::take(&mut word));
                    fresh = char == ',';
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            rooms.push(rest.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect());
        }
    }
    rooms.retain(|it| it.chars().next().is_some_and(char::is_lowercase));
    rooms
}

#[test]
fn imports_go_one_way() {
    let mut wrong = BTreeMap::new();
    for (file, room, text) in sources() {
        for import in imports(&text) {
            if place(&import) > place(&room) {
                wrong.entry(file.clone()).or_insert_with(Vec::new).push(import);
            }
        }
    }
    assert!(wrong.is_empty(), "these import rooms above them: {wrong:#?}");
}

/// Whether a word stands there by itself: `strand::` is no `rand::`.
fn has(line: &str, word: &str) -> bool {
    let alone = |at: usize| !line[..at].ends_with(|it: char| it.is_ascii_alphanumeric() || it == '_');
    line.match_indices(word).any(|(at, _)| alone(at))
}

#[test]
fn pure_rooms_have_no_sockets_files_clocks_or_luck() {
    let mut wrong = Vec::new();
    for (file, room, text) in sources() {
        // Tests of pure rooms may read recordings and look at the clock for a first `now`.
        let is_test = file.contains("/tests/")
            || file.ends_with("tests.rs")
            || file.ends_with("recorded.rs")
            || file.ends_with("properties.rs");
        if place(&room) > place(LAST_PURE) || is_test {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in IMPURE {
                if has(line, word) {
                    wrong.push(format!("{file}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_lists_and_paths() {
    let text = "use crate::{\n    fault::{Cause, Fault},\n    kind,\n    server::Zone,\n};\nlet a = crate::route::rank();";
    assert_eq!(imports(text), ["fault", "kind", "server", "route"]);
}
