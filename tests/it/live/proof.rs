//! Many edits of every sort, while callers ask without a pause.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use lovable::simulate;
use serde_json::json;

use super::*;
use crate::{
    caller::{Caller, request},
    proof::{Table, times},
    witness::{Seen, question, see},
};

/// How many ask at once.
const CALLERS: usize = 6;
/// A request that was sent before the edit may still be on its way to the server.
const ON_THE_WAY: Duration = Duration::from_millis(50);

/// How a file is written.
#[derive(Clone, Copy, Debug)]
enum Way {
    Written,
    Replaced,
    /// A link is pointed elsewhere.
    Linked,
    /// Half of it, and after a moment the rest.
    InHalves,
    /// Nothing at first.
    Emptied,
    /// It is away for a moment.
    Removed,
    /// With something wrong in it.
    Broken,
    BrokenAndReplaced,
    /// Cut off in the middle of a word.
    CutOff,
}

const WAYS: [Way; 9] = [
    Way::Written,
    Way::Replaced,
    Way::Broken,
    Way::Linked,
    Way::InHalves,
    Way::CutOff,
    Way::Emptied,
    Way::BrokenAndReplaced,
    Way::Removed,
];

/// The servers, and what is said of them in an edit.
struct Servers {
    always: Simulated,
    changing: Simulated,
    /// Preferred where it is trusted at all.
    sometimes: Simulated,
}

impl Servers {
    async fn start() -> Self {
        Self { always: slow().await, changing: slow().await, sometimes: slow().await }
    }

    fn lines(&self, number: usize) -> String {
        let mut lines = entry(&self.always, "name = \"always\"");
        let enabled = number.is_multiple_of(3);
        lines += &entry(&self.changing, &format!("name = \"changing-{number}\"\nenabled = {enabled}"));
        if is_named(number) {
            lines += &entry(&self.sometimes, "name = \"sometimes\"\npriority = -1");
        }
        format!("{lines}[aliases]\ntalk = \"sim\"\nnumber = \"edit-{number}\"\n")
    }
}

fn is_named(number: usize) -> bool {
    number % 4 < 2
}

async fn slow() -> Simulated {
    let script = Script { words: 12, between: Duration::from_millis(2), ..Script::default() };
    Simulated::start(Shape::Vllm, script).await.unwrap()
}

async fn ask_until(caller: Caller, over: Arc<AtomicBool>) -> Vec<Seen> {
    let mut connection = caller.connect().await.unwrap();
    let mut all = Vec::new();
    while !over.load(Relaxed) {
        if connection.ready().await.is_err() {
            connection = caller.connect().await.unwrap();
            connection.ready().await.unwrap();
        }
        let body = question("talk", "hello").to_string();
        let request = request("POST", "/v1/chat/completions", body.into(), &[]);
        all.push(see(&mut connection, request, simulate::check).await);
    }
    all
}

impl Way {
    fn is_valid(self) -> bool {
        !matches!(self, Self::Broken | Self::BrokenAndReplaced | Self::CutOff)
    }

    /// Makes the edit.
    async fn write(self, daemon: &Daemon, lines: &str, number: usize) {
        let (path, text) = (daemon.configuration(), configuration(lines));
        let moment = || sleep(Duration::from_millis(fastrand::u64(0..50)));
        let half = text.find("[aliases]").unwrap() + "[alia".len();
        match self {
            Self::Written => fs::write(&path, text).unwrap(),
            Self::Replaced => replace(daemon, lines),
            Self::Linked => {
                let (there, link) =
                    (path.with_file_name(format!("{number}.toml")), path.with_extension("link"));
                fs::write(&there, text).unwrap();
                symlink(&there, &link).unwrap();
                fs::rename(link, &path).unwrap();
            }
            Self::InHalves => {
                fs::write(&path, &text[..half]).unwrap();
                moment().await;
                fs::write(&path, text).unwrap();
            }
            Self::Emptied => {
                fs::write(&path, "").unwrap();
                sleep(Duration::from_millis(200)).await;
                fs::write(&path, text).unwrap();
            }
            Self::Removed => {
                fs::remove_file(&path).unwrap();
                moment().await;
                fs::write(&path, text).unwrap();
            }
            Self::Broken => fs::write(&path, text + "[patiance]\n").unwrap(),
            Self::BrokenAndReplaced => replace(daemon, &format!("{lines}[limits]\nbody = 5\n")),
            Self::CutOff => fs::write(&path, &text[..half]).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_of_any_sort_costs_a_request_and_the_last_valid_one_is_in_force() {
    let servers = Servers::start().await;
    let daemon = with(&servers.lines(0)).await;
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..CALLERS).map(|_| tokio::spawn(ask_until(daemon.caller(), over.clone()))).collect();
    let (mut in_force, mut took, mut broken) = (0, Vec::new(), 0);
    for number in 1..=times(60, 1000) {
        let way = WAYS[fastrand::usize(..WAYS.len())];
        way.write(&daemon, &servers.lines(number), number).await;
        if way.is_valid() {
            in_force = number;
            took.push(until_setting(&daemon, "aliases.number", json!(format!("edit-{number}"))).await);
            until("nothing is said to be broken", &daemon, async || {
                !reasons(&daemon).await.iter().any(|it| it.contains("broken"))
            })
            .await;
        } else {
            broken += 1;
            until_reason(&daemon, &["the configuration is broken", "config.toml:"]).await;
        }
        assert_eq!(
            setting(&daemon, "aliases.number").await,
            Some(json!(format!("edit-{in_force}"))),
            "{way:?}"
        );
        if !is_named(in_force) {
            sleep(ON_THE_WAY).await;
            let before = servers.sometimes.counts();
            sleep(ON_THE_WAY).await;
            assert_eq!(
                servers.sometimes.counts().received,
                before.received,
                "{way:?}: a prompt went to who is not trusted"
            );
        }
    }
    over.store(true, Relaxed);
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.unwrap());
    }
    let wrong: Vec<_> = seen.iter().filter_map(|it| it.whole.as_ref().err()).collect();
    took.sort();
    let mut table = Table::new(
        "edits of the configuration under load",
        &["edits", "broken", "requests", "failed", "in force after, median ms", "p95 ms", "longest ms"],
    );
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_millis();
    table.row(&[&(took.len() + broken), &broken, &seen.len(), &wrong.len(), &at(0.5), &at(0.95), &at(1.0)]);
    table.show();
    assert!(wrong.is_empty(), "{wrong:?}\n{}", daemon.log());
    assert!(servers.sometimes.counts().received > 0 && servers.changing.counts().received > 0);
}
