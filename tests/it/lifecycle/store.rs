//! What it remembers, and that no state of the disk keeps it from answering.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    caller::Verdict,
    lifecycle::{Home, check, is_root, output, until},
};

async fn server() -> Simulated {
    Simulated::start(Shape::Vllm, Script::default()).await.unwrap()
}

async fn answers(home: &Home) {
    let answer = home.caller().chat("sim", true).await.unwrap();
    assert_eq!(answer.verdict(), Verdict::Whole(8), "{}\n{}", answer.text(), home.log());
}

/// Stands before a server and, while it is shut, lets only prompts through.
async fn gate(server: &Simulated) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), server.port());
    let shut = Arc::new(AtomicBool::new(false));
    let is_shut = shut.clone();
    tokio::spawn(async move {
        while let Ok((mut front, _)) = listener.accept().await {
            let is_shut = is_shut.clone();
            tokio::spawn(async move {
                let mut first = [0; 4];
                if front.read_exact(&mut first).await.is_err() {
                    return;
                }
                while &first == b"GET " && is_shut.load(Ordering::Relaxed) {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                let mut back = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                back.write_all(&first).await.unwrap();
                let _ = copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    (port, shut)
}

#[tokio::test]
async fn a_known_server_answers_after_a_restart_before_it_was_asked_how_it_is() {
    let server = server().await;
    let (port, shut) = gate(&server).await;
    let home = Home::new();
    home.configure(&format!("[[servers]]\nurl = \"http://127.0.0.1:{port}\"\n"));
    let running = home.start(&[]).await;
    home.ready().await;
    running.stop().await;

    shut.store(true, Ordering::Relaxed);
    let running = home.start(&[]).await;
    let servers = home.caller().get("/lovable/v1/servers").await.json();
    assert_eq!(servers["servers"][0]["standing"], "suspect", "{servers:#}");
    assert_eq!(home.caller().get("/readyz").await.status, 200);
    answers(&home).await;
    shut.store(false, Ordering::Relaxed);
    home.ready().await;
    running.stop().await;
}

#[tokio::test]
async fn what_a_person_was_told_is_done_outlives_a_kill() {
    let servers = [server().await, server().await, server().await];
    let home = Home::new();
    let running = home.start(&[]).await;
    let mut ids = Vec::new();
    for server in &servers {
        let added = home.ctl(&["servers", "add", &server.endpoint().to_string(), "--json"]).await;
        let added: Value = serde_json::from_slice(&added.stdout).unwrap();
        ids.push(added["server"]["id"].as_str().unwrap().to_owned());
    }
    check(&home.ctl(&["servers", "drain", &ids[0]]).await, 0, &[&ids[0]]);
    check(&home.ctl(&["servers", "forget", &ids[1]]).await, 0, &[&ids[1]]);
    running.kill().await;
    let running = home.start(&[]).await;
    let known = home.caller().get("/lovable/v1/servers").await.json();
    let mut known: Vec<_> = known["servers"].as_array().unwrap().iter().collect();
    known.sort_by_key(|it| it["id"] != ids[0].as_str());
    let facts: Vec<_> = known.iter().map(|it| (it["id"].as_str(), it["admission"].as_str())).collect();
    assert_eq!(facts, [(Some(&*ids[0]), Some("draining")), (Some(&*ids[2]), Some("open"))]);
    running.stop().await;
}

/// The files in which sled keeps a database.
fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).filter(|it| it.is_file()).collect()
}

/// What a failing disk makes of a file.
type Inflict = fn(Vec<u8>) -> Vec<u8>;

#[tokio::test]
async fn a_damaged_database_is_moved_aside_and_life_goes_on() {
    let damages: [(&str, Inflict); 2] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("scribbled on", |bytes| bytes.iter().map(|it| it ^ 0xA5).collect()),
    ];
    for (damage, inflict) in damages {
        let server = server().await;
        let home = Home::with(&server);
        let running = home.start(&[]).await;
        home.ready().await;
        answers(&home).await;
        running.stop().await;
        for base in ["registry", "stats"] {
            for file in files(&home.state().join(base)) {
                fs::write(&file, inflict(fs::read(&file).unwrap())).unwrap();
            }
        }

        let running = home.start(&[]).await;
        home.ready().await;
        answers(&home).await;
        let status = home.status().await;
        assert_eq!(status["health"], "degraded", "{damage}: {status:#}");
        assert_eq!(status["store"]["ok"], true, "{damage}: {status:#}");
        assert!(status["reasons"].to_string().contains("was damaged"), "{damage}: {status:#}");
        assert!(home.log().contains("was damaged"), "{damage}: {}", home.log());
        let aside = fs::read_dir(home.state()).unwrap().map(|it| it.unwrap().file_name());
        assert!(aside.filter(|it| it.to_string_lossy().contains(".damaged-")).count() >= 1, "{damage}");
        running.stop().await;

        // What was begun anew is whole.
        let running = home.start(&[]).await;
        home.ready().await;
        assert_eq!(home.status().await["health"], "ok", "{damage}");
        running.stop().await;
    }
}

/// A daemon that keeps nothing answers all the same, and says why.
async fn keeps_nothing(home: &Home, why: &str) {
    home.ready().await;
    answers(home).await;
    let status = home.status().await;
    assert_eq!(status["store"]["ok"], false, "{status:#}");
    assert_eq!(status["health"], "degraded", "{status:#}");
    assert!(status["reasons"].to_string().contains(why), "{status:#}");
    assert!(home.log().contains(why), "{}", home.log());
    check(&home.ctl(&["status"]).await, 0, &[why]);
}

#[tokio::test]
async fn without_a_directory_to_write_to_it_keeps_nothing_and_says_so() {
    let server = server().await;
    let home = Home::with(&server);
    fs::write(home.at("file"), "").unwrap();
    let running = home.start(&["--state-dir", "file/state"]).await;
    keeps_nothing(&home, "nothing is kept across restarts").await;
    running.stop().await;
}

#[tokio::test]
async fn a_full_disk_hinders_no_answer() {
    if !is_root() {
        return;
    }
    // Full from the start, and full later. The disk is seen by the daemon alone and goes with it.
    for when in ["at once", "later"] {
        let server = server().await;
        let home = Home::with(&server);
        let mut command = home.command("unshare");
        let script = "mkdir $1 && mount -t tmpfs -o size=16m tmpfs $1 || exit 9
            [ \"$2\" = later ] || head -c 32m /dev/zero >$1/filler 2>/dev/null
            exec $0";
        command.args(["-m", "sh", "-c", script, super::LOVABLED]).arg(home.state()).arg(when);
        let mut running = home.spawn(command);
        let mounted =
            until("it answers, or there is no mounting here", async || match running.0.try_wait().unwrap() {
                Some(status) => {
                    assert_eq!(status.code(), Some(9), "{}", home.log());
                    Some(false)
                }
                None => home.caller().try_get("/healthz").await.is_ok().then_some(true),
            })
            .await;
        if !mounted {
            eprintln!("left out: {}", home.log());
            return;
        }
        if when == "later" {
            home.ready().await;
            assert_eq!(home.status().await["store"]["ok"], true);
            let seen = format!("/proc/{}/root{}", running.pid().as_raw_nonzero(), home.state().display());
            let full = fs::write(Path::new(&seen).join("filler"), vec![0; 32 << 20]);
            assert!(full.is_err());
            // Every answer leaves figures to write down.
            until("the full disk is noticed", async || {
                answers(&home).await;
                (home.status().await["store"]["ok"] == false).then_some(())
            })
            .await;
            keeps_nothing(&home, "outcomes are lost: No space left").await;
            assert!(home.status().await["store"]["dropped"].as_u64() > Some(0), "and counted");
        } else {
            keeps_nothing(&home, "nothing is kept across restarts").await;
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let home = Home::new();
    home.start(&[]).await.stop().await;
    let path = home.state().join("registry");
    {
        let db = sled::open(&path).unwrap();
        db.open_tree("meta").unwrap().insert("schema", &2_u32.to_be_bytes()).unwrap();
    }
    for args in [&[][..], &["--daemonize"]] {
        check(&output(home.lovabled(args)).await, 1, &["newer version", "schema 2"]);
        assert!(!home.socket().exists());
    }
    let db = sled::open(&path).unwrap();
    assert_eq!(db.open_tree("meta").unwrap().get("schema").unwrap().unwrap(), &2_u32.to_be_bytes());
}

#[tokio::test]
async fn a_database_that_another_daemon_holds_is_refused_and_left_alone() {
    let home = Home::new();
    let running = home.start(&[]).await;
    let before = fs::read_dir(home.state()).unwrap().count();
    let pid = format!("process {}", running.pid().as_raw_nonzero());
    let state = home.state().display().to_string();
    check(&output(home.lovabled(&["--socket", "other"])).await, 5, &["in use", &state, &pid]);
    assert_eq!(fs::read_dir(home.state()).unwrap().count(), before);
    assert!(!home.at("other").exists());
    assert_eq!(home.status().await["store"]["ok"], true);
    running.stop().await;
}

/// What `lovablectl stats` counts.
async fn counted(home: &Home) -> u64 {
    let output = home.ctl(&["stats", "--by", "model", "--json"]).await;
    let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    stats["rows"].as_array().unwrap().iter().map(|it| it["delivered"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn figures_are_kept_across_restarts_unless_somebody_minds() {
    let cases =
        [(None, true), (Some(("LOVABLE_TRACKING", "off")), false), (Some(("DO_NOT_TRACK", "1")), false)];
    let server = server().await;
    for (variable, kept) in cases {
        let home = Home::with(&server);
        let mut command = home.lovabled(&[]);
        command.envs(variable);
        let running = home.spawn(command);
        let running = home.answering(running, &home.socket()).await;
        home.ready().await;
        for _ in 0..3 {
            answers(&home).await;
        }
        assert_eq!(home.status().await["tracking"], kept, "{variable:?}");
        until("the requests are counted", async || (counted(&home).await == 3).then_some(())).await;
        running.stop().await;
        let running = home.start(&[]).await;
        assert_eq!(counted(&home).await, if kept { 3 } else { 0 }, "{variable:?}");
        running.stop().await;
    }
}
