//! The pages under `docs`, run: each page is a program for a shell.
//!
//! The word after the name of a language says what becomes of a block:
//!
//! - `sh` is run, in the page's order, beside a daemon with a simulated server of the page's kind;
//! - `sh daemon` is a command line of `lovabled`, by which that daemon is started;
//! - `sh PROGRAM` needs a program that tests do not have, and each of its lines is a call of it;
//! - `toml` is part of the daemon's configuration;
//! - `python NAME` and `js NAME` are files that commands find.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lovable::simulate::{Offer, Script, Shape, Simulated, text};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::script::{node_directory, programs};
use crate::{
    daemon::{Daemon, Options},
    real::odd_port,
};

/// The port of the pages, which may be taken here: another is put in its place.
const PORT: &str = "8765";

/// Programs that tests do not have, or whose work is not to be done in a test.
const ELSEWHERE: &[&str] = &["ollama", "vllm", "lms", "llama-server", "pip", "npm", "claude"];

/// No command of a page takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an answer is.
const WORDS: usize = 12;

/// A block of a page.
struct Block {
    line: usize,
    info: String,
    text: String,
}

/// The blocks between fences.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block { line: number + 1, info: info.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// All pages.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

#[test]
fn what_a_page_leaves_to_others_are_calls_of_programs_that_are_not_here() {
    for page in pages() {
        for block in blocks(&fs::read_to_string(&page).unwrap()) {
            let place = format!("{}:{}", page.display(), block.line);
            let mut words = block.info.split(' ');
            match (words.next(), words.next()) {
                (Some("sh"), Some("daemon")) => {
                    assert!(block.text.starts_with("lovabled "), "{place}");
                    assert_eq!(block.text.lines().count(), 1, "{place}");
                }
                (Some("sh"), Some(program)) => {
                    assert!(ELSEWHERE.contains(&program), "{place}");
                    for line in block.text.lines() {
                        let called = line.split(' ').any(|word| word == program);
                        assert!(called, "{place}: {line:?} is no call of {program}");
                    }
                }
                (Some("sh" | "toml"), None) | (Some("python" | "js"), Some(_)) => {}
                _ => panic!("{place}: `{}` is no block that is known", block.info),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn every_command_of_the_pages_works() {
    let mut failed = Vec::new();
    for page in pages() {
        if let Err(why) = follow(&page).await {
            failed.push(why);
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

/// Does what a page says.
async fn follow(page: &Path) -> Result<(), String> {
    let blocks = blocks(&fs::read_to_string(page).unwrap());
    let port = odd_port().await.to_string();
    let here = |text: &str| text.replace(&format!(":{PORT}"), &format!(":{port}"));
    let name = page.file_stem().unwrap().to_str().unwrap();
    let server = server(name).await;

    let mut options = Options::alone().simulated(&server, "mine", 0);
    for block in &blocks {
        match block.info.as_str() {
            "toml" => options = options.config(&block.text),
            "sh daemon" => {
                for arg in here(&block.text).split_whitespace().skip(1) {
                    options = options.arg(arg);
                }
            }
            _ => {}
        }
    }
    let keys = ["MY_VLLM_KEY", "MY_LLAMA_KEY", "LM_API_TOKEN"];
    let daemon = keys.iter().fold(options, |options, key| options.env(key, "any")).start().await;

    let packages = if name == "open-lovable" { "open-lovable" } else { "current" };
    let directory = node_directory(packages);
    prepare(directory.path(), &daemon);
    for block in &blocks {
        let place = format!("{}:{}", page.display(), block.line);
        let mut words = block.info.split(' ');
        match (words.next(), words.next()) {
            (Some("python" | "js"), Some(file)) => {
                fs::write(directory.path().join(file), here(&block.text)).unwrap();
            }
            (Some("sh"), None) => {
                run(directory.path(), &here(&block.text)).await.map_err(|why| format!("{place}: {why}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A server of the kind that a page is about, with the models that it names.
async fn server(page: &str) -> Simulated {
    let (shape, chat) = match page {
        "vllm" => (Shape::Vllm, "Qwen/Qwen3-8B"),
        "lm-studio" => (Shape::LmStudio, "qwen3-8b"),
        "llama.cpp" => (Shape::LlamaCpp, "qwen3-8b"),
        _ => (Shape::Ollama, "qwen3:8b"),
    };
    let embedder = Offer { embeds: true, ..Offer::named("nomic-embed-text") };
    let models = vec![Offer::named(chat), embedder];
    Simulated::start(shape, Script { models, words: WORDS, ..Script::default() }).await.unwrap()
}

/// Puts our programs, those of the clients and the socket where a page expects them.
fn prepare(directory: &Path, daemon: &Daemon) {
    let bin = directory.join("bin");
    let socket = directory.join("run/lovable/lovabled.sock");
    for it in [&bin, socket.parent().unwrap()] {
        fs::create_dir_all(it).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_lovablectl"), bin.join("lovablectl")).unwrap();
    for name in ["python", "node"] {
        // A link to Python would not know the environment that it belongs to.
        let text = format!("#!/bin/sh\nexec {} \"$@\"\n", programs().join(name).display());
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    symlink(daemon.socket(), socket).unwrap();
}

/// Runs the commands of a block; the first that fails ends it.
async fn run(directory: &Path, commands: &str) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", commands]).current_dir(directory).env_clear();
    shell.env("PATH", format!("{}/bin:{path}", directory.display())).env("HOME", directory);
    shell.env("XDG_RUNTIME_DIR", directory.join("run")).env("PYTHONDONTWRITEBYTECODE", "1");
    // What only the script of Open Lovable's page needs to know.
    let scene = json!({
        "socket": "", "address": "", "text": text(WORDS), "limit": null, "ways": ["environment"],
        "features": ["stream", "object"], "kinds": [{"kind": "ollama"}],
    });
    shell.env("LOVABLE_SCENE", scene.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, shell.output()).await.map_err(|_| "no end in time")?.unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
    if output.status.success() && !said.contains("\"failed\"") {
        Ok(())
    } else {
        Err(format!("{}\n{commands}{said}", output.status))
    }
}
