//! The command line of lovable.

use std::process::exit;

use lovable::cli;

fn main() -> anyhow::Result<()> {
    // Before there is a second thread: it changes the environment.
    cli::complete();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(cli::run(std::env::args_os()));
    // Not by returning: a thread may still wait for stdin, and nobody waits for that thread.
    exit(ended.code().into())
}
