//! Two daemons that find each other.

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    FAR, FOR_SURE, HOME, at_home, cabled,
    far::{Far, forward},
    listening, until, url,
};
use crate::{
    caller::{Answer, chat, request},
    daemon::{Daemon, Options},
};

const DOOR: u16 = 7700;

async fn ask(daemon: &Daemon, model: &str, headers: &[(&str, &str)]) -> Answer {
    let body = chat(model, false, "Count for me.").to_string();
    daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), headers)).await.unwrap()
}

/// A daemon on the other machine, with the way to it that others find.
async fn on(far: &Far, options: Options) -> Daemon {
    let there = far.there();
    let words: Vec<&str> = there.iter().map(String::as_str).collect();
    let daemon = options.under(&words).start().await;
    far.forward(DOOR, DOOR + 1).await;
    daemon
}

fn with_door(ip: &str, other: &str) -> Options {
    let trust = format!("trust = [\"{other}\"]\n");
    listening()
        .discovery(&trust)
        .config(&format!("[listen]\naddress = \"127.0.0.1:{}\"\nhosts = [\"{ip}\"]\n", DOOR + 1))
}

fn models(list: &Value) -> Vec<&str> {
    list["models"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn two_daemons_find_each_other_and_do_not_loop() {
    at_home("lovables::two_daemons_find_each_other_and_do_not_loop", async {
        let far = cabled().await;
        // Each has a way in for the other, and the other machine has a server.
        forward(DOOR, DOOR + 1).await;
        far.serve(Shape::Vllm, 8000).await;
        let server = "[[servers]]\nurl = \"http://127.0.0.1:8000\"\nname = \"gpu\"\n";
        let theirs = on(&far, with_door(FAR, HOME).config(server)).await;
        let ours = with_door(HOME, FAR).start().await;
        far.announce("_lovable", "theirs", DOOR).await;
        let mdns = announce_home();

        // They find each other; the server of the one is a server of the other.
        let found = until(&ours, &url(FAR, DOOR), "is found", |it| it["standing"] == "up").await;
        assert_eq!((&found["kind"], &found["zone"]), (&"lovable".into(), &"lan".into()), "{found}");
        assert_eq!(found["admission"], "open");
        let back = until(&theirs, &url(HOME, DOOR), "is found", |it| it["standing"] == "up").await;
        assert_eq!(back["kind"], "lovable");
        until(&ours, &url(FAR, DOOR), "has the model", |it| it["models"][0] == "sim").await;
        let answer = ask(&ours, "sim", &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-lovable-kind"), Some("lovable"));
        assert_eq!(answer.header("x-lovable-zone"), Some("lan"));
        assert_eq!(answer.header("x-lovable-attempts"), Some("1"));
        assert_eq!(far.got(8000).await.prompts, 1);

        // What they have from us is not shown to us as theirs, and the other way round.
        sleep(FOR_SURE).await;
        let ours_seen = until(&theirs, &url(HOME, DOOR), "is up", |it| it["standing"] == "up").await;
        assert_eq!(ours_seen["models"], serde_json::json!([]), "{ours_seen}");
        let list = ours.caller().get("/lovable/v1/models").await.json();
        assert_eq!(models(&list), ["sim"]);
        assert_eq!(list["models"][0]["servers"][0]["zone"], "lan");

        // Seen directly as well it is one model with two ways, and the direct one is taken.
        far.announce("_vllm", "gpu", 8000).await;
        until(&ours, &url(FAR, 8000), "is found", |it| it["standing"] == "up").await;
        let list = ours.caller().get("/lovable/v1/models").await.json();
        assert_eq!(models(&list), ["sim"]);
        assert_eq!(list["models"][0]["servers"].as_array().unwrap().len(), 2, "{list}");
        for _ in 0..5 {
            let answer = ask(&ours, "sim", &[]).await;
            assert_eq!(answer.header("x-lovable-kind"), Some("vllm"), "{}", answer.text());
        }

        // A request that has come from there is not sent back there.
        let instance = ours.caller().get("/healthz").await.header("x-lovable-instance").unwrap().to_owned();
        let answer = ask(&ours, "sim", &[("x-lovable-via", &instance)]).await;
        assert_eq!(answer.status, 508, "{}", answer.text());
        for daemon in [&ours, &theirs] {
            for server in daemon.servers().await.iter().filter(|it| it["kind"] == "lovable") {
                assert_eq!(server["standing"], "up", "{server}");
                assert_eq!(server["last_fault"], Value::Null, "{server}");
            }
        }
        drop(mdns);
    })
    .await;
}

/// Two that know of nothing but each other's word, as after their one server has died.
#[tokio::test]
async fn two_daemons_that_have_nothing_but_each_other_give_one_answer() {
    at_home("lovables::two_daemons_that_have_nothing_but_each_other_give_one_answer", async {
        super::ip("link set lo up").await;
        let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
        let (one, other) = (url("127.0.0.1", 7801), url("127.0.0.1", 7802));
        let listen = |at: &str| format!("[listen]\naddress = \"{}\"\n", at.trim_start_matches("http://"));
        let knows = |at: &str| format!("[[servers]]\nurl = \"{at}\"\nname = \"neighbour\"\n");
        let ours = Options::alone().config(&listen(&one)).config(&knows(&other)).simulated(&server, "gpu", 0);
        let theirs = Options::alone().config(&listen(&other)).config(&knows(&one)).start().await;
        let ours = ours.start().await;
        until(&theirs, &one, "has the model", |it| it["models"][0] == "sim").await;
        assert_eq!(ask(&theirs, "sim", &[]).await.status, 200);
        // It dies; the neighbour still believes in it.
        server.kill().await;
        for daemon in [&ours, &theirs] {
            let answer = ask(daemon, "sim", &[]).await;
            assert!([502, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
            let error = &answer.json()["error"];
            assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{error}");
        }
        for daemon in [&ours, &theirs] {
            for server in daemon.servers().await.iter().filter(|it| it["kind"] == "lovable") {
                assert_eq!(server["standing"], "up", "{server}");
            }
        }
    })
    .await;
}

/// Announces the way in at home, for as long as it is kept.
fn announce_home() -> mdns_sd::ServiceDaemon {
    let mdns = mdns_sd::ServiceDaemon::new().unwrap();
    let (ty, host) = ("_lovable._tcp.local.", "ours.local.");
    let mut service =
        mdns_sd::ServiceInfo::new(ty, "ours", host, HOME, DOOR, &[("version", "1")][..]).unwrap();
    service.set_requires_probe(false);
    mdns.register(service).unwrap();
    mdns
}
