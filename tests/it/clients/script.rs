//! Runs a script of `tests/clients` with the clients that `tests/clients/setup.sh` installed,
//! and reads the rows that it prints.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::proof::Table;

/// A script that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where `tests/clients/setup.sh` put everything.
fn installed() -> PathBuf {
    std::env::var_os("LOVABLE_REAL_SERVERS").expect("the directory of tests/clients/setup.sh").into()
}

/// A file of `tests/clients`.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A script and the packages that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    /// The directory of its packages, for Node.
    packages: Option<&'static str>,
}

/// All scripts that try every feature.
pub(super) const SCRIPTS: &[Script] = &[
    python("openai_python.py"),
    node("openai_node.mjs", "current"),
    python("anthropic_python.py"),
    node("anthropic_node.mjs", "current"),
    python("ollama_python.py"),
    node("ollama_node.mjs", "current"),
    node("ai_sdk_5.mjs", "open-lovable"),
    node("ai_sdk_7.mjs", "current"),
    python("litellm_python.py"),
    python("langchain_python.py"),
];

pub(super) const fn python(name: &'static str) -> Script {
    Script { name, packages: None }
}

pub(super) const fn node(name: &'static str, packages: &'static str) -> Script {
    Script { name, packages: Some(packages) }
}

/// A directory in which Node finds `packages` and the scripts: it looks beside the importing file.
pub(super) fn node_directory(packages: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    symlink(installed().join(packages).join("node_modules"), directory.path().join("node_modules")).unwrap();
    for entry in fs::read_dir(source("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "mjs") {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    directory
}

/// The directory of the programs `python` and `node`.
pub(super) fn programs() -> PathBuf {
    installed().join("clients/bin")
}

impl Script {
    /// Runs it under `before`, which may be nothing, and returns the rows that it prints. What
    /// it had printed counts also where it does not come to its end.
    pub(super) async fn run(self, before: &[String], env: &[(String, String)], scene: &Value) -> Vec<Row> {
        let said = tempfile::tempdir().unwrap();
        let ended = self.end(before, env, scene, said.path()).await;
        let read =
            |name: &str| String::from_utf8_lossy(&fs::read(said.path().join(name)).unwrap()).into_owned();
        let mut rows: Vec<Row> = read("stdout").lines().filter_map(Row::read).collect();
        let ended = ended.and_then(|it| it.success().then_some(()).ok_or_else(|| it.to_string()));
        match ended {
            Err(why) => rows.push(Row::broken(self.name, &format!("{why}\n{}", read("stderr")))),
            Ok(()) if rows.is_empty() => rows.push(Row::broken(self.name, "it tried nothing")),
            Ok(()) => {}
        }
        rows
    }

    /// Runs it to its end, with all that it says in files in `said`.
    async fn end(
        self,
        before: &[String],
        env: &[(String, String)],
        scene: &Value,
        said: &Path,
    ) -> Result<ExitStatus, String> {
        let directory = self.packages.map(node_directory);
        let (program, file) = match &directory {
            Some(directory) => ("node", directory.path().join(self.name)),
            None => ("python", source(self.name)),
        };
        let program = programs().join(program);
        let mut words = before.iter().map(AsRef::as_ref).chain([program.as_os_str(), file.as_os_str()]);
        let mut command = Command::new(words.next().expect("a program at least"));
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", std::env::temp_dir()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(env.iter().map(|(name, value)| (name, value))).env("LOVABLE_SCENE", scene.to_string());
        let file = |name: &str| fs::File::create(said.join(name)).unwrap();
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let ended = timeout(PATIENCE, child.wait()).await;
        ended.map(|it| it.unwrap()).map_err(|_| format!("no end in {} s", PATIENCE.as_secs()))
    }
}

/// One thing that was tried.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) client: String,
    pub(super) way: String,
    pub(super) kind: String,
    pub(super) feature: String,
    pub(super) result: String,
    pub(super) why: Option<String>,
}

impl Row {
    /// A script that did not come to its end.
    fn broken(script: &str, why: &str) -> Self {
        let text = |it: &str| it.to_owned();
        Self {
            client: text(script),
            way: text("any"),
            kind: text("any"),
            feature: text("to the end"),
            result: text("failed"),
            why: Some(text(why)),
        }
    }

    fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Self {
            client: text("client")?,
            way: text("way")?,
            kind: text("kind")?,
            feature: text("feature")?,
            result: text("result")?,
            why: text("why"),
        })
    }
}

/// The table of what was tried, client × kind × feature, and what failed in words. A cell is
/// `ok` when it is so by every way.
pub(super) fn judge(title: &str, rows: &[Row], features: &[&str]) {
    let mut columns = vec!["client", "server", "over"];
    columns.extend(features);
    let mut table = Table::new(title, &columns);
    let mut clients: Vec<&str> = Vec::new();
    let mut cells: BTreeMap<(usize, &str), BTreeMap<&str, Vec<&Row>>> = BTreeMap::new();
    for row in rows {
        let at = clients.iter().position(|it| *it == row.client).unwrap_or_else(|| {
            clients.push(&row.client);
            clients.len() - 1
        });
        cells.entry((at, &row.kind)).or_default().entry(&row.feature).or_default().push(row);
    }
    for ((at, kind), features_found) in &cells {
        let mut ways: Vec<&str> = features_found.values().flatten().map(|row| row.way.as_str()).collect();
        ways.sort_unstable();
        ways.dedup();
        let over = ways.join(", ");
        let shown: Vec<&str> =
            features.iter().map(|it| cell(features_found.get(it).map_or(&[][..], Vec::as_slice))).collect();
        let mut line: Vec<&dyn std::fmt::Display> = vec![&clients[*at], kind, &over];
        line.extend(shown.iter().map(|it| it as &dyn std::fmt::Display));
        table.row(&line);
    }
    table.show();
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| row.result == "failed")
        .map(|row| {
            let why = row.why.as_deref().unwrap_or("no reason");
            format!("{}, {}, {}, {}: {why}", row.client, row.kind, row.way, row.feature)
        })
        .collect();
    assert!(failed.is_empty(), "\n{}\n{}", table.text(), failed.join("\n"));
}

fn cell(rows: &[&Row]) -> &'static str {
    match rows {
        [] => "not tried",
        rows if rows.iter().any(|row| row.result == "failed") => "FAILED",
        rows if rows.iter().all(|row| row.result == "ok") => "ok",
        _ => "-",
    }
}
