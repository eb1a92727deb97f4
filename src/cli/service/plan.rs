//! What an installed service consists of: files and what is in them, and what
//! is said to the manager. Pure, so that a Mac's can be looked at anywhere.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::environment;

const UNIT: &str = include_str!("../../../systemd/user/lovabled.service");
const SOCKET: &str = include_str!("../../../systemd/user/lovabled.socket");
const AGENT: &str = include_str!("../../../launchd/dev.lovable.lovabled.plist");

pub(super) const SOCKET_UNIT: &str = "lovabled.socket";
pub(super) const SERVICE_UNIT: &str = "lovabled.service";
pub(super) const LABEL: &str = "dev.lovable.lovabled";

/// Where things are for the user who installs.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) home: PathBuf,
    /// `XDG_CONFIG_HOME`, or what stands for it.
    pub(super) config: PathBuf,
    pub(super) lovabled: PathBuf,
}

/// A file of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) text: String,
}

impl Places {
    /// The file of variables beside the configuration.
    pub(super) fn environment(&self) -> PathBuf {
        self.config.join("lovable/environment")
    }

    pub(super) fn unit(&self, name: &str) -> PathBuf {
        self.config.join("systemd/user").join(name)
    }

    pub(super) fn agent(&self) -> PathBuf {
        self.home.join("Library/LaunchAgents").join(format!("{LABEL}.plist"))
    }

    /// Directories that launchd does not make.
    pub(super) fn agent_directories(&self) -> [PathBuf; 2] {
        [self.home.join("Library/Caches/lovable"), self.home.join("Library/Logs/lovable")]
    }
}

/// The units, and the variables that they bring along on top of `old` ones.
pub(super) fn units(places: &Places, old: &str, variables: &BTreeMap<String, String>) -> Vec<File> {
    let environment = places.environment();
    let unit: Vec<_> = UNIT
        .lines()
        // What is said there to whoever copies the file is done here.
        .skip_while(|it| it.starts_with('#') || it.is_empty())
        .map(|line| match line {
            "ExecStart=lovabled" => format!("ExecStart={}", word(&places.lovabled)),
            line if line.starts_with("EnvironmentFile=") => {
                format!("EnvironmentFile=-{}", specifiers(&environment.display().to_string()))
            }
            line => line.to_owned(),
        })
        .collect();
    let note = "# Written by `lovablectl service install`.\n\n";
    let mut files = vec![
        File { path: places.unit(SOCKET_UNIT), mode: 0o644, text: SOCKET.to_owned() },
        File { path: places.unit(SERVICE_UNIT), mode: 0o644, text: format!("{note}{}\n", unit.join("\n")) },
    ];
    if !variables.is_empty() || !old.is_empty() {
        let text = environment::merged(old, variables);
        files.push(File { path: environment, mode: 0o600, text });
    }
    files
}

/// The agent with the variables in it.
pub(super) fn agent(places: &Places, variables: &BTreeMap<String, String>) -> File {
    let entries: String = variables
        .iter()
        .map(|(name, value)| {
            format!("\n    <key>{}</key>\n    <string>{}</string>", escaped(name), escaped(value))
        })
        .collect();
    let last = "<string>Listeners</string>";
    let text = AGENT
        .replace("@HOME@", &escaped(&places.home.display().to_string()))
        .replace("@LOVABLED@", &escaped(&places.lovabled.display().to_string()))
        .replacen(last, &format!("{last}{entries}"), 1);
    // Keys may be in it.
    File { path: places.agent(), mode: 0o600, text: without_comment(&text) }
}

/// Without what is said to whoever copies the file.
fn without_comment(text: &str) -> String {
    match (text.find("<!--\n"), text.find("-->\n")) {
        (Some(begin), Some(end)) if begin < end => format!("{}{}", &text[..begin], &text[end + 4..]),
        _ => text.to_owned(),
    }
}

/// A path as one word of a command line in a unit.
fn word(path: &Path) -> String {
    let text = path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
    format!("\"{}\"", specifiers(&text))
}

fn specifiers(text: &str) -> String {
    text.replace('%', "%%")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn places(lovabled: &str) -> Places {
        Places { home: "/home/ada".into(), config: "/home/ada/.config".into(), lovabled: lovabled.into() }
    }

    fn one() -> BTreeMap<String, String> {
        BTreeMap::from([("OLLAMA_HOST".to_owned(), "a<b>&c".to_owned())])
    }

    #[test]
    fn the_unit_names_the_program_and_the_file_of_variables() {
        let files = units(&places("/opt/100% mine/lovabled"), "", &one());
        let unit = &files[1].text;
        assert!(unit.contains("\nExecStart=\"/opt/100%% mine/lovabled\"\n"), "{unit}");
        assert!(unit.contains("\nEnvironmentFile=-/home/ada/.config/lovable/environment\n"), "{unit}");
        assert!(!unit.contains("install -D"), "{unit}");
        assert_eq!(files[2].mode, 0o600);
        assert_eq!(units(&places("/l"), "", &BTreeMap::new()).len(), 2, "nothing to carry over");
    }

    #[test]
    fn the_agent_is_a_property_list_with_everything_filled_in() {
        let agent = agent(&places("/opt/a & b/lovabled"), &one());
        assert!(!agent.text.contains('@') && !agent.text.contains("launchctl"), "{}", agent.text);
        assert_eq!(agent.mode, 0o600);
        let read = "import plistlib, sys; it = plistlib.loads(sys.stdin.buffer.read()); \
            assert it['ProgramArguments'] == ['/opt/a & b/lovabled'], it; \
            assert it['EnvironmentVariables']['OLLAMA_HOST'] == 'a<b>&c', it; \
            assert it['Sockets']['Listeners']['SockPathName'] == \
                '/home/ada/Library/Caches/lovable/lovabled.sock', it";
        let python = Command::new("python3").args(["-c", read]).stdin(Stdio::piped()).spawn();
        let Ok(mut python) = python else { return };
        python.stdin.take().unwrap().write_all(agent.text.as_bytes()).unwrap();
        assert!(python.wait().unwrap().success(), "{}", agent.text);
    }
}
