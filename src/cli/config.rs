//! `config`: the settings in force and where each came from; the file, checked and edited.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Context, Exit, Trouble,
    out::{Ink, Look},
    say,
    table::{Cell, Column, table},
};
use crate::{
    client::ClientError,
    config::{Flags, Loaded, PathFlags, Paths, Surroundings, load},
    wire::{ConfigView, Setting, SettingSource},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the settings in force, and where each came from
    Show,
    /// Check the file, and say everything that is wrong with it
    Check {
        /// Another file than the usual one
        file: Option<PathBuf>,
    },
    /// Print where the file is, or would be
    Path,
    /// Open the file in $VISUAL or $EDITOR, and check it afterwards
    Edit,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    match args.verb {
        Verb::Show => show(context).await,
        Verb::Check { file } => check(file, context),
        Verb::Path => path(context),
        Verb::Edit => edit(context),
    }
}

async fn show(context: &mut Context) -> Result<Exit, Trouble> {
    match context.client.config().await {
        Ok(reply) => context.show(&reply, page)?,
        // Without a daemon there is still an answer: what it would start with.
        Err(ClientError::Unreachable { .. }) => {
            let view = loaded(None, context)?.show();
            context.talk.line("lovablectl: lovabled is not running; it would start with these settings")?;
            if context.json {
                context.out.json(view.to_string().as_bytes())?;
            } else {
                let view: ConfigView =
                    serde_json::from_value(view).map_err(|error| Trouble::Failed(error.to_string()))?;
                let page = page(&view, context.out.look);
                context.out.text(&page)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Fine)
}

fn check(file: Option<PathBuf>, context: &mut Context) -> Result<Exit, Trouble> {
    let loaded = loaded(file, context)?;
    for warning in &loaded.warnings {
        context.talk.line(say::clean(warning))?;
    }
    if context.json {
        context.out.json(loaded.show().to_string().as_bytes())?;
    } else {
        let said = match &loaded.file {
            Some(file) => format!("{} is fine", file.display()),
            None => format!(
                "there is no {}; that is fine, everything has a default",
                loaded.paths.config.path.display()
            ),
        };
        context.out.line(said)?;
    }
    Ok(Exit::Fine)
}

fn path(context: &mut Context) -> Result<Exit, Trouble> {
    let path = file(context)?;
    if context.json {
        let path = serde_json::json!({ "path": path, "exists": path.exists() });
        context.out.json(path.to_string().as_bytes())?;
    } else {
        context.out.line(path.display().to_string())?;
    }
    Ok(Exit::Fine)
}

fn edit(context: &mut Context) -> Result<Exit, Trouble> {
    let path = file(context)?;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .map_err(|error| Trouble::Failed(format!("cannot make {}: {error}", directory.display())))?;
    }
    open_editor(&path)?;
    if !path.exists() {
        context.talk.line("nothing was saved")?;
        return Ok(Exit::Fine);
    }
    check(None, context)
}

/// Runs the editor. Its variable may hold arguments, so a shell takes it apart, as git has it done.
fn open_editor(path: &Path) -> Result<(), Trouble> {
    let set = |name| std::env::var_os(name).filter(|it: &OsString| !it.is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".into());
    let mut script = editor.clone();
    script.push(" \"$@\"");
    let ended = Command::new("sh").arg("-c").arg(script).arg("editor").arg(path).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Trouble::Failed(format!("{} ended with {status}", editor.display()))),
        Err(error) => Err(Trouble::Failed(format!("cannot run {}: {error}", editor.display()))),
    }
}

fn file(context: &Context) -> Result<PathBuf, Trouble> {
    let paths = Paths::resolve(&flags(None, context).paths, &Surroundings::of_process(), None);
    paths.map(|it| it.config.path).map_err(|error| Trouble::Usage(error.to_string()))
}

fn loaded(file: Option<PathBuf>, context: &Context) -> Result<Loaded, Trouble> {
    load(&flags(file, context), &Surroundings::of_process(), None)
        .map_err(|error| Trouble::Usage(error.to_string()))
}

/// The socket decides whether the user's file is meant or the system's.
fn flags(config: Option<PathBuf>, context: &Context) -> Flags {
    let paths = PathFlags { config, socket: context.socket.clone(), ..PathFlags::default() };
    Flags { paths, ..Flags::default() }
}

const COLUMNS: [Column; 3] =
    [Column::new("SETTING").shrinks(12), Column::new("VALUE").shrinks(10), Column::new("FROM").shrinks(7)];

fn page(view: &ConfigView, look: Look) -> String {
    let rows: Vec<_> = view.settings.iter().map(|it| row(it).to_vec()).collect();
    let mut page = table(&COLUMNS, &rows, look);
    for warning in &view.warnings {
        page.push_str(&format!("{} {}\n", look.paint(Ink::Warn, "!"), say::clean(warning)));
    }
    page
}

fn row(setting: &Setting) -> [Cell; 3] {
    let ink = if setting.from == SettingSource::Default { Ink::Dim } else { Ink::Plain };
    let from = match (&setting.at, setting.from) {
        (Some(at), _) => say::clean(at),
        (None, SettingSource::Flag) => "flag".to_owned(),
        (None, SettingSource::Environment) => "environment".to_owned(),
        (None, SettingSource::File) => "file".to_owned(),
        (None, SettingSource::Default) => "default".to_owned(),
    };
    let value = match &setting.value {
        serde_json::Value::Null => say::UNKNOWN.to_owned(),
        value => say::clean(&value.to_string()),
    };
    [Cell::from(say::clean(&setting.key)), Cell::inked(value, ink), Cell::inked(from, ink)]
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn the_table_fits_60_and_120_cells() {
        for width in [60, 120] {
            let page = page(&sample::config(), Look { width: Some(width), color: false });
            insta::assert_snapshot!(format!("config_{width}"), page);
        }
    }

    #[test]
    fn what_the_room_of_settings_shows_is_what_the_wire_says() {
        let env = |_: &str| None;
        let around = Surroundings {
            system: crate::config::System::Linux,
            uid: 1000,
            home: Some("/nonexistent".into()),
            env: &env,
        };
        let loaded = load(&Flags::default(), &around, None).unwrap();
        let view: ConfigView = serde_json::from_value(loaded.show()).unwrap();
        assert_eq!(view.settings.len(), loaded.settings.len());
        assert!(view.settings.iter().any(|it| it.key == "patience.gap"), "{view:?}");
    }
}
