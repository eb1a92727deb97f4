//! `man`: manual pages, from the same definitions as the help.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Context, Exit, Trouble};
use crate::service::args;

/// lovablectl man | man -l -
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which page: lovablectl, lovabled, or a command's, such as lovablectl-servers
    #[arg(default_value = "lovablectl", conflicts_with = "dir")]
    page: String,
    /// Write every page into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let pages = pages();
    match args.dir {
        Some(dir) => write(&pages, &dir)?,
        None => {
            let Some((_, text)) = pages.iter().find(|it| it.0 == args.page) else {
                let all: Vec<_> = pages.iter().map(|it| it.0.as_str()).collect();
                return Err(Trouble::Usage(format!("no page `{}`; there are {}", args.page, all.join(", "))));
            };
            context.out.bytes(text)?;
        }
    }
    Ok(Exit::Fine)
}

fn write(pages: &[(String, Vec<u8>)], dir: &Path) -> Result<(), Trouble> {
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |error| Trouble::Failed(format!("cannot write {path}: {error}"))
    };
    fs::create_dir_all(dir).map_err(fail(dir))?;
    for (name, text) in pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, text).map_err(fail(&path))?;
    }
    Ok(())
}

/// Every page, by name.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut pages = Vec::new();
    for program in [Cli::command(), args::Args::command()] {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        add(&program, &mut pages);
    }
    pages
}

fn add(command: &Command, into: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = Man::new(command.clone()).manual("lovable").render(&mut text);
    into.push((name, text));
    command.get_subcommands().filter(|it| !it.is_hide_set()).for_each(|it| add(it, into));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let pages = pages();
        let page = |name: &str| {
            let page = pages.iter().find(|it| it.0 == name).unwrap_or_else(|| panic!("no page {name}"));
            String::from_utf8(page.1.clone()).unwrap()
        };
        assert!(page("lovabled").contains("daemonize"));
        assert!(page("lovablectl").contains("lovablectl\\-doctor(1)"), "{}", page("lovablectl"));
        assert!(page("lovablectl-servers-add").contains("base URL"));
        for (name, text) in &pages {
            assert!(text.starts_with(b".ie"), "{name}");
        }
    }
}
