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
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lovable::simulate::{Offer, Script, Shape, Simulated};
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
    let server = Simulated::start_at_shape(name).await;

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
    let daemon = options.env("MY_VLLM_KEY", "x").env("MY_LLAMA_KEY", "x").env("LM_API_TOKEN", "x").start().await;

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
