//! `service`: the daemon as a service of the user who asks, through systemd or launchd.
//!
//! Every verb may be repeated. What is written is in `plan`, what is said to
//! the manager in `manager`; here is the order, and what a person is told.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::json;

use self::{
    manager::Manager,
    plan::{File, Places, SERVICE_UNIT, SOCKET_UNIT},
};
use super::{Context, Exit, Trouble};
use crate::config::{Flags, PathFlags, Paths, Surroundings, load, variables};

mod environment;
mod manager;
mod plan;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write the units, start the daemon, and have it started with each session
    Install {
        /// Start it at the first request only, not with the session
        #[arg(long)]
        on_demand: bool,
    },
    /// Stop the daemon and remove what install wrote
    Uninstall {
        /// Remove what it has kept as well: servers, statistics
        #[arg(long)]
        purge: bool,
    },
    /// Start it
    Start,
    /// Let running answers end and stop it
    Stop,
    /// Say whether it is installed and runs
    Status,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let manager = Manager::of_this_system();
    let places = places()?;
    match args.verb {
        Verb::Install { on_demand } => install(manager, &places, on_demand, context).await,
        Verb::Uninstall { purge } => uninstall(manager, &places, purge, context),
        Verb::Start => {
            must_be_installed(manager, &places)?;
            manager.start(&places.agent())?;
            tell_whether_it_answers(context).await
        }
        Verb::Stop => {
            must_be_installed(manager, &places)?;
            manager.stop()?;
            context.out.line("lovabled is stopped; it starts again with your next session")?;
            Ok(Exit::Fine)
        }
        Verb::Status => status(manager, &places, context).await,
    }
}

async fn install(
    manager: Manager,
    places: &Places,
    on_demand: bool,
    context: &mut Context,
) -> Result<Exit, Trouble> {
    must_be_the_right_user()?;
    if let Ok(reply) = context.client.status().await
        && !manager.is_enabled()
        && let Ok(status) = reply.read()
    {
        let why = "a daemon that is no service runs already";
        return Err(Trouble::Failed(format!("{why} (process {}); stop it first: kill {0}", status.pid)));
    }
    let variables = carried(context)?;
    let files = match manager {
        Manager::Systemd => {
            let old = fs::read_to_string(places.environment()).unwrap_or_default();
            plan::units(places, &old, &variables)
        }
        Manager::Launchd => {
            for directory in places.agent_directories() {
                make_directory(&directory)?;
            }
            vec![plan::agent(places, &variables)]
        }
    };
    let mut changed = false;
    for file in &files {
        changed |= write(file)?;
    }
    manager.enable(&places.agent(), on_demand)?;
    if changed {
        manager.restart()?;
    }
    for file in &files {
        context.talk.line(format!("{} {}", if changed { "wrote" } else { "kept" }, file.path.display()))?;
    }
    if !variables.is_empty() {
        let names: Vec<_> = variables.keys().map(String::as_str).collect();
        context.talk.line(format!("the service sees these variables of this shell: {}", names.join(", ")))?;
    }
    if manager == Manager::Systemd && manager.lingers() != Some(true) {
        context.talk.text(LINGER)?;
    }
    tell_whether_it_answers(context).await
}

const LINGER: &str = "\
It starts when you log in and stops when you log out of your last session. To have it run
from the start of the machine on, whether you are logged in or not: loginctl enable-linger
";

fn uninstall(manager: Manager, places: &Places, purge: bool, context: &mut Context) -> Result<Exit, Trouble> {
    must_be_the_right_user()?;
    // A service has its usual places, whatever is said of others here.
    let nowhere = Surroundings {
        env: &|name| std::env::var_os(name).filter(|_| name != "LOVABLE_SOCKET"),
        ..Surroundings::of_process()
    };
    let paths = Paths::resolve(&PathFlags::default(), &nowhere, None)
        .map_err(|error| Trouble::Usage(error.to_string()))?;
    let files = match manager {
        Manager::Systemd => {
            vec![places.unit(SOCKET_UNIT), places.unit(SERVICE_UNIT), places.environment()]
        }
        Manager::Launchd => vec![places.agent()],
    };
    if is_installed(manager, places) {
        manager.disable()?;
    }
    let mut removed = 0;
    for file in &files {
        removed += usize::from(take_back(file)?);
    }
    manager.forget();
    let socket_directory = paths.socket.path.parent().map(Path::to_owned);
    // What is empty now was made for what is gone; anything else stays.
    let emptied = files.iter().flat_map(|it| it.ancestors().skip(1).take(2)).map(Path::to_owned);
    for directory in emptied.chain(socket_directory) {
        let _ = fs::remove_dir(directory);
    }
    let state = paths.state.path;
    if purge {
        match fs::remove_dir_all(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Trouble::Failed(format!("cannot remove {}: {error}", state.display())));
            }
            _ => {}
        }
    }
    let said = if removed == 0 { "lovabled was not installed" } else { "lovabled is uninstalled" };
    context.out.line(said)?;
    if !purge && state.exists() {
        context.talk.line(format!(
            "what it has learnt of servers and requests is kept in {}; --purge removes it",
            state.display()
        ))?;
    }
    Ok(Exit::Fine)
}

async fn status(manager: Manager, places: &Places, context: &mut Context) -> Result<Exit, Trouble> {
    let installed = is_installed(manager, places);
    let state = if installed { manager.state() } else { "inactive".to_owned() };
    let enabled = installed && manager.is_enabled();
    let lingers = manager.lingers();
    let variables = environment::names(&fs::read_to_string(places.environment()).unwrap_or_default());
    let answers = context.client.status().await.is_ok();
    if context.json {
        let said = json!({
            "installed": installed, "enabled": enabled, "state": state, "answers": answers,
            "lingers": lingers, "variables": variables,
        });
        context.out.json(said.to_string().as_bytes())?;
    } else {
        let yes = |it: bool| if it { "yes" } else { "no" };
        context.out.line(format!("installed  {}", yes(installed)))?;
        context.out.line(format!("enabled    {}", yes(enabled)))?;
        context.out.line(format!("state      {state}"))?;
        context.out.line(format!("answers    {}", yes(answers)))?;
        if let Some(lingers) = lingers {
            context.out.line(format!("lingers    {}", yes(lingers)))?;
        }
        if !variables.is_empty() {
            context.out.line(format!("variables  {}", variables.join(", ")))?;
        }
        if !installed {
            context.talk.line("to install it: lovablectl service install")?;
        }
    }
    Ok(if answers { Exit::Fine } else { Exit::Unreachable })
}

async fn tell_whether_it_answers(context: &mut Context) -> Result<Exit, Trouble> {
    match context.client.status().await {
        Ok(_) => context.out.line(format!("lovabled answers on {}", context.client.socket().display()))?,
        Err(error) => {
            let log = match Manager::of_this_system() {
                Manager::Systemd => "journalctl --user -u lovabled",
                Manager::Launchd => "tail ~/Library/Logs/lovable/lovabled.log",
            };
            context.talk.line(format!("it does not answer yet ({error}); its log: {log}"))?;
        }
    }
    Ok(Exit::Fine)
}

/// What of this shell's variables the daemon listens to.
fn carried(context: &mut Context) -> Result<BTreeMap<String, String>, Trouble> {
    let mut carried = BTreeMap::new();
    for name in variables(&loaded(context)?.settings) {
        let Some(value) = std::env::var(&name).ok().filter(|it| !it.is_empty()) else { continue };
        if environment::may_be_carried(&value) {
            carried.insert(name, value);
        } else {
            context
                .talk
                .line(format!("{name} holds what cannot stand on one line; it is not carried over"))?;
        }
    }
    Ok(carried)
}

/// The settings that the service will have. A wrong file is told before anything is written.
fn loaded(context: &Context) -> Result<crate::config::Loaded, Trouble> {
    if context.socket.is_some() || std::env::var_os("LOVABLE_SOCKET").is_some_and(|it| !it.is_empty()) {
        let why = "a service has its usual socket: leave out --socket, and unset LOVABLE_SOCKET";
        return Err(Trouble::Usage(why.to_owned()));
    }
    load(&Flags::default(), &Surroundings::of_process(), None)
        .map_err(|error| Trouble::Usage(error.to_string()))
}

/// `sudo` would install it for root, and root's services know nothing of the user's session.
fn must_be_the_right_user() -> Result<(), Trouble> {
    match std::env::var("SUDO_USER") {
        Ok(user) if rustix::process::geteuid().is_root() && !user.is_empty() && user != "root" => {
            Err(Trouble::Usage(format!(
                "it is installed for the user who runs this, which is root here; run it as {user}, without sudo"
            )))
        }
        _ => Ok(()),
    }
}

fn must_be_installed(manager: Manager, places: &Places) -> Result<(), Trouble> {
    match is_installed(manager, places) {
        true => Ok(()),
        false => Err(Trouble::Failed("the service is not installed; lovablectl service install".to_owned())),
    }
}

fn is_installed(manager: Manager, places: &Places) -> bool {
    match manager {
        Manager::Systemd => places.unit(SERVICE_UNIT).exists(),
        Manager::Launchd => places.agent().exists(),
    }
}

/// Removes a file, of that with variables only what is ours; says whether there was any of it.
fn take_back(path: &Path) -> Result<bool, Trouble> {
    if path.ends_with("environment")
        && let Ok(text) = fs::read_to_string(path)
        && let Some(own) = environment::without_ours(&text)
    {
        return match own == text {
            true => Ok(false),
            false => write(&File { path: path.to_owned(), mode: 0o600, text: own.to_owned() }),
        };
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Trouble::Failed(format!("cannot remove {}: {error}", path.display()))),
    }
}

fn places() -> Result<Places, Trouble> {
    let around = Surroundings::of_process();
    let Some(home) = around.home.clone() else {
        return Err(Trouble::Usage("HOME is not set; a user's service needs a home".to_owned()));
    };
    let config = around.var("XDG_CONFIG_HOME").map(PathBuf::from).filter(|it| it.is_absolute());
    Ok(Places { config: config.unwrap_or_else(|| home.join(".config")), home, lovabled: lovabled()? })
}

/// The daemon beside this program, as it was installed.
fn lovabled() -> Result<PathBuf, Trouble> {
    let beside = std::env::current_exe().ok().map(|it| it.with_file_name("lovabled"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|it| it.join("lovabled"));
    let mut all = beside.into_iter().chain(on_path.filter(|it| it.is_absolute()));
    all.find(|it| it.is_file())
        .ok_or_else(|| Trouble::Failed("there is no lovabled beside this program or on the PATH".to_owned()))
}

/// Writes a file whole; says whether that changed anything.
fn write(file: &File) -> Result<bool, Trouble> {
    let File { path, mode, text } = file;
    let fail = |error: io::Error| Trouble::Failed(format!("cannot write {}: {error}", path.display()));
    let same_mode = |it: fs::Metadata| it.permissions().mode() & 0o777 == *mode;
    if fs::read_to_string(path).is_ok_and(|it| it == *text) && fs::metadata(path).is_ok_and(same_mode) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&fresh)?;
        // The umask may have taken too much.
        fs::set_permissions(&fresh, fs::Permissions::from_mode(*mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    put().map_err(fail)?;
    Ok(true)
}

fn make_directory(path: &Path) -> Result<(), Trouble> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Trouble::Failed(format!("cannot make {}: {error}", path.display())))
}
