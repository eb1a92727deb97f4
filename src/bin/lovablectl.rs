//! The command line of lovable.

use std::process::exit;

use lovable::cli::{self, Exit};

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            // A command that is through has ended as it did, even when the key came meanwhile.
            biased;
            ended = cli::run(std::env::args_os()) => ended,
            _ = tokio::signal::ctrl_c() => Exit::Interrupted,
        }
    });
    // Not by returning: a thread may still wait for stdin, and nobody waits for that thread.
    exit(ended.code().into())
}
