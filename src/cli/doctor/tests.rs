//! One fault after the other, planted in facts in which nothing is wrong.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::{
    Report, bundle,
    checks::CHECKS,
    facts::{Facts, Knock, Multicast, Owner, SocketFact},
};
use crate::{
    cli::{out::Look, sample},
    registry::{Admission, Standing},
    server::{Problem, Source, Zone},
    wire::{FaultView, LookupView, PostgresView, Setting, SettingSource},
};

fn own_socket(knock: Knock) -> SocketFact {
    SocketFact {
        path: "/run/user/1000/lovable/lovabled.sock".into(),
        of_system: false,
        owner: Some(Owner { uid: 1000, mode: 0o600, is_socket: true }),
        directory: Some(Owner { uid: 1000, mode: 0o700, is_socket: false }),
        knock,
    }
}

/// A machine on which all is well: an Ollama with a model.
fn well() -> Facts {
    let mut servers = sample::servers();
    servers.truncate(1);
    let mut models = sample::models();
    models.retain(|it| it.name.as_str() == "qwen3:8b");
    for model in &mut models {
        model.loaded_context_length = model.context_length;
    }
    Facts {
        version: "0.1.0".to_owned(),
        now_ms: sample::NOW_MS,
        uid: 1000,
        user: "ada".to_owned(),
        sockets: vec![own_socket(Knock::Answers(4711))],
        status: Some(sample::status()),
        servers,
        models,
        multicast: Multicast::Works,
        state: Some("/home/ada/.local/state/lovable".into()),
        free: Some(1 << 40),
        memory: Some(64 << 30),
        ..Facts::default()
    }
}

/// Asserts that exactly this check finds something, which names these words.
#[track_caller]
fn check(facts: &Facts, id: &str, words: &[&str]) {
    let report = Report::of(facts);
    let wrong: Vec<_> = report.checks.iter().filter(|it| !it.ok).map(|it| it.check).collect();
    assert_eq!(wrong, [id], "{report:#?}");
    assert!(!report.ok);
    let page = report.page(Look { width: None, color: false });
    for word in words {
        assert!(page.contains(word), "no {word:?} in\n{page}");
    }
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let report = Report::of(&well());
    assert!(report.ok, "{report:#?}");
    let page = report.page(Look { width: None, color: false });
    assert_eq!(page.lines().count(), CHECKS.len(), "{page}");
}

#[test]
fn a_daemon_that_does_not_run() {
    let gone = Facts {
        sockets: vec![SocketFact { owner: None, ..own_socket(Knock::Nothing) }],
        status: None,
        servers: Vec::new(),
        models: Vec::new(),
        ..well()
    };
    check(&gone, "daemon", &["not running", "lovablectl service install"]);
    check(&Facts { has_service: true, ..gone.clone() }, "daemon", &["journalctl --user -u lovabled"]);
    let silent = Facts { sockets: vec![own_socket(Knock::Silent)], ..gone };
    check(&silent, "daemon", &["says nothing"]);
}

#[test]
fn a_dead_socket() {
    let mut facts = well();
    facts.sockets.push(SocketFact { path: "/tmp/old.sock".into(), ..own_socket(Knock::Refused) });
    check(&facts, "stale_socket", &["/tmp/old.sock", "rm /tmp/old.sock"]);
}

#[test]
fn a_socket_with_the_wrong_owner_or_mode() {
    let with = |change: fn(&mut SocketFact)| {
        let mut facts = well();
        change(&mut facts.sockets[0]);
        facts
    };
    check(&with(|it| it.owner.as_mut().unwrap().uid = 1001), "socket_access", &["user 1001"]);
    check(&with(|it| it.owner.as_mut().unwrap().mode = 0o666), "socket_access", &["0666", "chmod 600"]);
    check(&with(|it| it.directory.as_mut().unwrap().mode = 0o777), "socket_access", &["chmod 700"]);
    check(&with(|it| it.directory.as_mut().unwrap().uid = 1001), "socket_access", &["directory", "1001"]);
    check(&with(|it| it.owner.as_mut().unwrap().is_socket = false), "socket_access", &["no socket"]);
    check(&with(|it| it.knock = Knock::Denied), "socket_access", &["may not open"]);
    let group = with(|it| (it.of_system, it.knock) = (true, Knock::Denied));
    check(&group, "socket_access", &["group lovable", "usermod --append --groups lovable ada"]);
}

#[test]
fn two_daemons() {
    let mut facts = well();
    let other = SocketFact { path: "/run/lovable/lovabled.sock".into(), ..own_socket(Knock::Answers(9)) };
    facts.sockets.push(SocketFact { of_system: true, ..other });
    check(&facts, "two_daemons", &["4711", "9", "/run/lovable/lovabled.sock"]);
    // The same one by two names.
    facts.sockets[1].knock = Knock::Answers(4711);
    assert!(Report::of(&facts).ok);
}

#[test]
fn a_wrong_configuration() {
    let facts = Facts { configuration: Some("config.toml:3: unknown `limitz`".to_owned()), ..well() };
    check(&facts, "configuration", &["config.toml:3", "lovablectl config edit"]);
}

#[test]
fn another_version() {
    check(&Facts { version: "0.2.0".to_owned(), ..well() }, "version", &["0.1.0", "0.2.0"]);
}

#[test]
fn no_server_and_what_is_installed() {
    let none = Facts { servers: Vec::new(), models: Vec::new(), ..well() };
    check(&none, "no_server", &["no model server was found", "lovablectl servers add"]);
    let installed = Facts { installed: vec![("Ollama", "ollama serve")], ..none };
    check(&installed, "no_server", &["Ollama is installed here and not started", "ollama serve"]);
    let mut down = well();
    down.servers[0].standing = Standing::Down;
    check(&down, "no_server", &["1 server known"]);
}

#[test]
fn a_server_that_needs_a_key_or_refuses_our_host() {
    let mut facts = well();
    facts.servers[0].problem = Some(Problem::NeedsKey);
    check(&facts, "needs_key", &["ollama needs a key", "key_env"]);
    facts.servers[0].problem = Some(Problem::WrongHost);
    check(&facts, "wrong_host", &["refuses the Host header", "[[servers]]"]);
}

fn waiting(url: &str) -> Facts {
    let mut facts = well();
    let mut other = facts.servers[0].clone();
    other.id = "other".into();
    other.admission = Admission::Untrusted;
    other.url = url.to_owned();
    other.found_by = vec![Source::SocketTable];
    facts.servers.push(other);
    facts
}

#[test]
fn a_server_on_a_network_address_alone() {
    let facts = waiting("http://192.168.7.2:11434");
    check(&facts, "other_interface", &["192.168.7.2", "OLLAMA_HOST=127.0.0.1"]);
}

#[test]
fn another_users_server() {
    let facts = waiting("http://127.0.0.1:11435");
    check(&facts, "untrusted", &["belongs to another user", "lovablectl servers trust other"]);
}

#[test]
fn a_model_with_less_context_than_it_allows() {
    let mut facts = well();
    facts.models[0].loaded_context_length = Some(4_096);
    check(&facts, "small_context", &["4,096", "40,960", "OLLAMA_CONTEXT_LENGTH=40960"]);
}

#[test]
fn a_model_that_is_larger_than_memory() {
    let mut facts = Facts { memory: Some(4 << 30), ..well() };
    for server in &mut facts.models[0].servers {
        server.loaded = Some(false);
    }
    check(&facts, "too_large", &["5.2 GB", "4.3 GB", "gpu_memory"]);
    facts.gpu_memory = 2 << 30;
    assert!(Report::of(&facts).ok, "the GPU holds the rest");
    for server in &mut facts.models[0].servers {
        (server.loaded, facts.gpu_memory) = (Some(true), 0);
    }
    assert!(Report::of(&facts).ok, "what is loaded fits");
}

fn set(key: &str, value: serde_json::Value, from: SettingSource) -> Setting {
    Setting { key: key.to_owned(), value, from, at: None }
}

#[test]
fn a_server_that_answers_one_at_a_time() {
    let mut facts = well();
    facts.servers[0].limit = Some(1);
    check(&facts, "one_at_a_time", &["one request at a time", "OLLAMA_NUM_PARALLEL"]);
    facts.settings = vec![
        set("servers[0].url", json!("http://127.0.0.1:11434"), SettingSource::File),
        set("servers[0].limit", json!(1), SettingSource::File),
    ];
    assert!(Report::of(&facts).ok, "the person wants it so");
}

#[test]
fn a_variable_that_the_daemon_does_not_see() {
    let facts = Facts { unseen: vec!["OLLAMA_HOST".to_owned()], ..well() };
    check(&facts, "variables", &["OLLAMA_HOST", "restart lovabled in this shell"]);
    check(&Facts { has_service: true, ..facts }, "variables", &["lovablectl service install"]);
}

#[test]
fn a_network_on_which_nobody_is_found() {
    for (multicast, words) in [
        (Multicast::NoRoute, "no interface has a route"),
        (Multicast::Forbidden, "lets no multicast out"),
        (Multicast::Deaf, "lets no multicast in"),
    ] {
        let facts = Facts { multicast, ..well() };
        check(&facts, "multicast", &[words]);
        let off = set("discovery.mdns", json!(false), SettingSource::File);
        assert!(Report::of(&Facts { settings: vec![off], ..facts }).ok, "nobody is looked for");
    }
}

#[test]
fn a_mac_that_keeps_the_network_private() {
    let mut facts = Facts { mac: true, ..well() };
    let mut far = facts.servers[0].clone();
    far.zone = Zone::Lan;
    far.url = "http://box:11434".to_owned();
    far.last_fault = Some(FaultView {
        stage: crate::fault::Stage::Connect,
        cause: "unreachable".to_owned(),
        status: None,
        retry_after_ms: None,
        message: "cannot be reached".to_owned(),
        at: None,
    });
    facts.servers.push(far);
    check(&facts, "local_network", &["Privacy & Security", "Local Network"]);
    assert!(Report::of(&Facts { mac: false, ..facts }).ok);
}

#[test]
fn a_full_disk_and_a_store_that_keeps_nothing() {
    check(&Facts { free: Some(1 << 20), ..well() }, "disk", &["full", "1.0 MB", "--state-dir"]);
    let mut facts = well();
    facts.status.as_mut().unwrap().store.ok = false;
    check(&facts, "disk", &["nothing is kept"]);
}

#[test]
fn a_lookup_that_does_not_go_well() {
    let mut facts = well();
    let trouble = Some("the resolver does not answer in time".to_owned());
    let lookup = LookupView { name: "pool.lab.example:8000".to_owned(), servers: 3, trouble };
    facts.status.as_mut().unwrap().lookups = vec![lookup];
    check(&facts, "lookups", &["pool.lab.example:8000", "in time", "dig SRV pool.lab.example", "resolver"]);
    facts.status.as_mut().unwrap().lookups[0].trouble = None;
    assert!(Report::of(&facts).ok);
}

#[test]
fn a_database_that_was_moved_aside() {
    let path = PathBuf::from("/home/ada/.local/state/lovable/rollups.damaged-7");
    check(&Facts { moved_aside: vec![path], ..well() }, "moved_aside", &["rollups.damaged-7", "rm -r"]);
}

#[test]
fn a_clock_that_is_wrong() {
    check(&Facts { now_ms: 86_400_000, ..well() }, "clock", &["never set"]);
    let mut facts = well();
    facts.servers[0].last_seen = Some("2026-03-01T13:00:00Z".to_owned());
    check(&facts, "clock", &["set back by 1 h"]);
}

#[test]
fn a_shared_database_that_does_not_get_what_it_should() {
    let with = |change: fn(&mut PostgresView)| {
        let mut facts = well();
        change(facts.status.as_mut().unwrap().postgres.as_mut().unwrap());
        facts
    };
    for (problem, words) in [
        ("unreachable", ["db.example:5432/team cannot be reached; 12 outcomes wait", "sent by itself"]),
        ("login", ["refuses the user or the password", "lovablectl config edit"]),
        ("no_tls", ["does not encrypt", "sslmode=disable"]),
        ("tls", ["does not prove", "sslrootcert"]),
        ("not_allowed", ["does not let the user", "insert on lovable.outcomes"]),
        ("newer", ["newer lovable", "update lovable"]),
        ("what comes later", ["takes nothing", "lovablectl status"]),
    ] {
        let mut facts = with(|_| {});
        let it = facts.status.as_mut().unwrap().postgres.as_mut().unwrap();
        (it.ok, it.problem) = (false, Some(problem.to_owned()));
        check(&facts, "postgres", &words);
    }
    check(&with(|it| it.refused = 2), "postgres", &["refused 2 outcomes", "constraint"]);
    check(&with(|it| it.deleted_unsent = true), "postgres", &["deleted here before", "max_size"]);
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let mut names: Vec<_> = CHECKS.iter().map(|it| it.id).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
}

/// Texts that cannot be part of what the bundle says by itself.
fn secret() -> impl Strategy<Value = String> {
    "[qxz]{6,12}".prop_map(|it| format!("x{it}"))
}

proptest! {
    #[test]
    fn nothing_private_is_ever_in_a_bundle(secrets in proptest::collection::vec(secret(), 10)) {
        let [home, user, machine, model, name, host, value, alias, dir, database] = &secrets[..] else { unreachable!() };
        let mut facts = waiting(&format!("http://{host}.example:11434"));
        facts.servers[1].name = Some(name.clone());
        facts.servers[1].id = name.as_str().into();
        facts.servers[1].problem = Some(Problem::NeedsKey);
        facts.models[0].name = model.as_str().into();
        facts.models[0].aliases = vec![alias.clone()];
        facts.models[0].loaded_context_length = Some(1);
        facts.user.clone_from(user);
        facts.state = Some(format!("/home/{home}/{dir}").into());
        facts.free = Some(0);
        facts.sockets[0].path = format!("/home/{home}/s.sock").into();
        facts.sockets[0].knock = Knock::Refused;
        facts.configuration = Some(format!("/home/{home}/config.toml:1: unknown"));
        facts.settings = vec![
            set(&format!("aliases.{alias}"), json!(model), SettingSource::File),
            set("servers[0].url", json!(format!("http://{host}.example:11434")), SettingSource::File),
            set("listen.hosts", json!([value]), SettingSource::Environment),
            set("state_dir", json!(format!("/home/{home}/{dir}")), SettingSource::Default),
        ];
        facts.status.as_mut().unwrap().reasons = vec![format!("{name} is down: cannot use /home/{home}/{dir}")];
        let shared = facts.status.as_mut().unwrap().postgres.as_mut().unwrap();
        shared.database = format!("{database}.example:5432/{database}");
        shared.problem = Some("login".to_owned());
        let reason = format!("outcomes wait for PostgreSQL at {database}.example:5432/{database}: no");
        facts.status.as_mut().unwrap().reasons.push(reason);
        let names = bundle::Names {
            home: Some(format!("/home/{home}")),
            user: Some(user.clone()),
            machine: Some(machine.clone()),
        };
        let text = bundle::bundle(&facts, &Report::of(&facts), &names).to_string();
        for secret in &secrets {
            prop_assert!(!text.contains(secret.as_str()), "{secret} in {text}");
        }
        prop_assert!(text.contains("needs a key"), "{text}");
    }
}
