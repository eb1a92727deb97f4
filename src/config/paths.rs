//! Where the socket, the configuration and the state are.
//!
//! A pure function of flags, environment and system. The system's places hold
//! when the socket in use lies in `/run/lovable`; otherwise the daemon is a
//! user's, root's too. `lovablectl` and the daemon ask the same function.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::Origin;

/// Looks up an environment variable; tests give a closure of their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The socket's directory when the daemon is a service of the system.
pub const SYSTEM_RUN: &str = "/run/lovable";
const SOCKET_NAME: &str = "lovabled.sock";

/// The systems that differ in where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// XDG directories.
    Linux,
    /// `~/Library`.
    MacOs,
}

/// Whose daemon it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One user's.
    User,
    /// The system's, for the members of group `lovable`.
    System,
}

/// What paths depend on besides flags.
pub struct Surroundings<'a> {
    /// Which system.
    pub system: System,
    /// Our user.
    pub uid: u32,
    /// Our home directory.
    pub home: Option<PathBuf>,
    /// The environment.
    pub env: Env<'a>,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            system: if cfg!(target_os = "macos") { System::MacOs } else { System::Linux },
            uid: rustix::process::geteuid().as_raw(),
            home: std::env::home_dir().filter(|it| it.is_absolute()),
            env: &|name| std::env::var_os(name),
        }
    }
}

impl Surroundings<'_> {
    /// A variable; an empty one counts as unset.
    pub fn var(&self, name: &str) -> Option<OsString> {
        (self.env)(name).filter(|it| !it.is_empty())
    }

    /// A variable as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.var(name).map(|it| it.to_string_lossy().into_owned())
    }

    /// A directory of the XDG rules: a relative one counts as unset.
    fn xdg(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|it| it.is_absolute())
    }

    fn home(&self, what: &'static str) -> Result<&Path, PathError> {
        self.home.as_deref().ok_or(PathError::NoHome(what))
    }
}

/// Flags that name paths.
#[derive(Clone, Debug, Default)]
pub struct PathFlags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// Where `--demo` keeps what is gone afterwards; beats even a flag.
    pub demo: Option<PathBuf>,
}

/// A path and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Absolute.
    pub path: PathBuf,
    /// Who said so.
    pub from: Origin,
    /// The flag or variable, if one did.
    pub at: Option<&'static str>,
}

/// Where everything is. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Whose daemon it is.
    pub scope: Scope,
    /// The socket.
    pub socket: Place,
    /// The configuration file, which need not exist unless it was named.
    pub config: Place,
    /// The directory of the store.
    pub state: Place,
}

/// Why there is no path.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Neither a variable nor a home directory.
    #[error("HOME is not set, so there is no place for the {0}; set HOME or name a path")]
    NoHome(&'static str),
    /// The current directory is gone.
    #[error("cannot make {path} absolute")]
    Relative {
        /// The path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

impl Paths {
    /// Finds all paths. An `inherited` socket beats even a flag, for it is the one in use.
    pub fn resolve(
        flags: &PathFlags,
        around: &Surroundings<'_>,
        inherited: Option<&Path>,
    ) -> Result<Self, PathError> {
        let socket = match inherited {
            Some(path) => Place { path: path.to_owned(), from: Origin::Environment, at: Some("LISTEN_FDS") },
            None => choose(
                (flags.socket.as_deref(), "--socket"),
                (around.var("LOVABLE_SOCKET"), "LOVABLE_SOCKET"),
                || user_socket(around),
            )?,
        };
        let scope = scope_of(&socket.path, around.system);
        let config = choose(
            (flags.config.as_deref(), "--config"),
            (around.var("LOVABLE_CONFIG"), "LOVABLE_CONFIG"),
            || config_file(around, scope),
        )?;
        let state_flag = match &flags.demo {
            Some(path) => (Some(path.as_path()), "--demo"),
            None => (flags.state_dir.as_deref(), "--state-dir"),
        };
        let state = choose(state_flag, (around.var("LOVABLE_STATE_DIR"), "LOVABLE_STATE_DIR"), || {
            state_dir(around, scope)
        })?;
        Ok(Self { scope, socket, config, state })
    }

    /// Where a client looks, in order: the one that was named, else the user's and then the system's.
    pub fn socket_candidates(
        socket: Option<&Path>,
        around: &Surroundings<'_>,
    ) -> Result<Vec<PathBuf>, PathError> {
        let place = choose((socket, "--socket"), (around.var("LOVABLE_SOCKET"), "LOVABLE_SOCKET"), || {
            user_socket(around)
        })?;
        let mut candidates = vec![place.path];
        if place.from == Origin::Default && around.system == System::Linux {
            candidates.push(Path::new(SYSTEM_RUN).join(SOCKET_NAME));
        }
        Ok(candidates)
    }
}

fn choose(
    flag: (Option<&Path>, &'static str),
    variable: (Option<OsString>, &'static str),
    default: impl FnOnce() -> Result<PathBuf, PathError>,
) -> Result<Place, PathError> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| PathError::Relative { path: path.to_owned(), source })
    };
    if let (Some(path), name) = flag {
        return Ok(Place { path: absolute(path)?, from: Origin::Flag, at: Some(name) });
    }
    if let (Some(path), name) = variable {
        return Ok(Place { path: absolute(Path::new(&path))?, from: Origin::Environment, at: Some(name) });
    }
    Ok(Place { path: default()?, from: Origin::Default, at: None })
}

fn scope_of(socket: &Path, system: System) -> Scope {
    // `/var/run` is the old name of `/run`.
    let parent = socket.parent().unwrap_or(Path::new("/"));
    let run = parent.strip_prefix("/var").map_or_else(|_| parent.to_owned(), |it| Path::new("/").join(it));
    if system == System::Linux && run == Path::new(SYSTEM_RUN) { Scope::System } else { Scope::User }
}

fn user_socket(around: &Surroundings<'_>) -> Result<PathBuf, PathError> {
    match around.system {
        System::MacOs => Ok(around.home("socket")?.join("Library/Caches/lovable").join(SOCKET_NAME)),
        System::Linux => Ok(match around.xdg("XDG_RUNTIME_DIR") {
            Some(run) => run.join("lovable").join(SOCKET_NAME),
            None => shared_tmp_dir(around.uid).join(SOCKET_NAME),
        }),
    }
}

/// The private directory in `/tmp` for a user without `XDG_RUNTIME_DIR`. Anybody
/// can make a directory of that name first, so it is checked before each use.
pub fn shared_tmp_dir(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/lovable-{uid}"))
}

fn config_file(around: &Surroundings<'_>, scope: Scope) -> Result<PathBuf, PathError> {
    let directory = match (around.system, scope) {
        (System::Linux, Scope::System) => PathBuf::from("/etc"),
        (System::Linux, Scope::User) => match around.xdg("XDG_CONFIG_HOME") {
            Some(directory) => directory,
            None => around.home("configuration")?.join(".config"),
        },
        (System::MacOs, _) => around.home("configuration")?.join("Library/Application Support"),
    };
    Ok(directory.join("lovable/config.toml"))
}

fn state_dir(around: &Surroundings<'_>, scope: Scope) -> Result<PathBuf, PathError> {
    match (around.system, scope) {
        (System::Linux, Scope::System) => Ok(PathBuf::from("/var/lib/lovable")),
        (System::Linux, Scope::User) => Ok(match around.xdg("XDG_STATE_HOME") {
            Some(directory) => directory.join("lovable"),
            None => around.home("state")?.join(".local/state/lovable"),
        }),
        (System::MacOs, _) => Ok(around.home("state")?.join("Library/Application Support/lovable/state")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(system: System, variables: &[(&str, &str)], flags: &PathFlags) -> Paths {
        let env = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| OsString::from(it.1));
        let around = Surroundings { system, uid: 1000, home: Some("/home/ada".into()), env: &env };
        Paths::resolve(flags, &around, None).unwrap()
    }

    fn check(system: System, variables: &[(&str, &str)], socket: &str, config: &str, state: &str) {
        let paths = resolve(system, variables, &PathFlags::default());
        assert_eq!(paths.socket.path, Path::new(socket));
        assert_eq!(paths.config.path, Path::new(config));
        assert_eq!(paths.state.path, Path::new(state));
    }

    #[test]
    fn a_user_on_linux() {
        check(
            System::Linux,
            &[("XDG_RUNTIME_DIR", "/run/user/1000"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s")],
            "/run/user/1000/lovable/lovabled.sock",
            "/c/lovable/config.toml",
            "/s/lovable",
        );
    }

    #[test]
    fn a_user_on_linux_without_any_variable() {
        let expected = (
            "/tmp/lovable-1000/lovabled.sock",
            "/home/ada/.config/lovable/config.toml",
            "/home/ada/.local/state/lovable",
        );
        check(System::Linux, &[], expected.0, expected.1, expected.2);
        // Empty and relative directories count as unset.
        let useless = [("XDG_RUNTIME_DIR", ""), ("XDG_CONFIG_HOME", "c"), ("XDG_STATE_HOME", "./s")];
        check(System::Linux, &useless, expected.0, expected.1, expected.2);
    }

    #[test]
    fn the_system_is_known_by_its_socket() {
        for socket in ["/run/lovable/lovabled.sock", "/var/run/lovable/other.sock"] {
            check(
                System::Linux,
                &[("LOVABLE_SOCKET", socket), ("XDG_CONFIG_HOME", "/c")],
                socket,
                "/etc/lovable/config.toml",
                "/var/lib/lovable",
            );
        }
        let user = resolve(
            System::Linux,
            &[("LOVABLE_SOCKET", "/run/lovable-not/lovabled.sock")],
            &PathFlags::default(),
        );
        assert_eq!(user.scope, Scope::User);
    }

    #[test]
    fn a_mac() {
        check(
            System::MacOs,
            &[("XDG_RUNTIME_DIR", "/ignored")],
            "/home/ada/Library/Caches/lovable/lovabled.sock",
            "/home/ada/Library/Application Support/lovable/config.toml",
            "/home/ada/Library/Application Support/lovable/state",
        );
    }

    #[test]
    fn a_flag_beats_a_variable_and_an_inherited_socket_beats_both() {
        let flags = PathFlags { socket: Some("/flag.sock".into()), ..PathFlags::default() };
        let env = |name: &str| (name == "LOVABLE_SOCKET").then(|| OsString::from("/variable.sock"));
        let around =
            Surroundings { system: System::Linux, uid: 1, home: Some("/home/ada".into()), env: &env };
        let socket = |flags: &PathFlags, inherited: Option<&Path>| {
            Paths::resolve(flags, &around, inherited).unwrap().socket
        };
        assert_eq!(socket(&flags, None).path, Path::new("/flag.sock"));
        assert_eq!(socket(&PathFlags::default(), None).from, Origin::Environment);
        let inherited = Path::new("/run/lovable/lovabled.sock");
        assert_eq!(socket(&flags, Some(inherited)).path, inherited);
    }

    #[test]
    fn a_demo_keeps_nothing_where_others_keep_theirs() {
        let flags = PathFlags {
            state_dir: Some("/flag".into()),
            demo: Some("/tmp/demo".into()),
            ..PathFlags::default()
        };
        let state = resolve(System::Linux, &[("LOVABLE_STATE_DIR", "/variable")], &flags).state;
        assert_eq!(state, Place { path: "/tmp/demo".into(), from: Origin::Flag, at: Some("--demo") });
    }

    #[test]
    fn a_client_looks_at_the_users_socket_before_the_systems() {
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| OsString::from("/r"));
        let around = Surroundings { system: System::Linux, uid: 1, home: None, env: &env };
        assert_eq!(
            Paths::socket_candidates(None, &around).unwrap(),
            [Path::new("/r/lovable/lovabled.sock"), Path::new("/run/lovable/lovabled.sock")]
        );
        assert_eq!(
            Paths::socket_candidates(Some(Path::new("/named")), &around).unwrap(),
            [Path::new("/named")]
        );
    }

    #[test]
    fn without_a_home_it_says_what_to_do() {
        let around = Surroundings { system: System::Linux, uid: 1, home: None, env: &|_| None };
        let error = Paths::resolve(&PathFlags::default(), &around, None).unwrap_err();
        assert!(error.to_string().contains("HOME is not set"), "{error}");
    }
}
