mod cloud;
mod failing;
mod room;
mod share;
mod stand_in;
mod way;

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    generate::{Needs, Operation},
    registry::{Admission, Standing},
    server::{Bounds, Capability, Endpoint, Problem, Zone},
};

fn server(id: &str, models: &[&str]) -> Server {
    let kind = id.split('-').next().unwrap_or(id);
    Server {
        id: id.into(),
        kind: kind.into(),
        name: None,
        version: None,
        endpoint: Endpoint::parse("127.0.0.1:1").unwrap(),
        also_at: Vec::new(),
        zone: Zone::Machine,
        bounds: Bounds::default(),
        word: None,
        standing: Standing::Up,
        admission: Admission::Open,
        problem: None,
        simulated: false,
        found_by: BTreeSet::new(),
        announced_as: BTreeSet::new(),
        instance: None,
        models: models.iter().map(|it| Arc::new(Model::named(*it))).collect(),
        limit: None,
        priority: 0,
        weight: None,
        last_seen_ms: None,
        since_ms: 0,
        last_fault: None,
        lacks: Vec::new(),
        busy_until: None,
        trial_at: None,
    }
}

/// Words that change a server: `down+5` (its trial is in 5 s), `busy+7`, `limit2`, `prio-1`, `ctx4096` …
fn change(mut server: Server, words: &str, now: Instant) -> Server {
    let seconds = |word: &str, name: &str| {
        word.strip_prefix(name).and_then(|it| it.parse().ok()).map(Duration::from_secs)
    };
    for word in words.split_whitespace() {
        match word {
            "up" => server.standing = Standing::Up,
            "suspect" => server.standing = Standing::Suspect,
            "trial" => server.standing = Standing::Trial,
            "displaced" => server.standing = Standing::Down,
            "due" => (server.standing, server.trial_at) = (Standing::Down, Some(now)),
            "draining" => server.admission = Admission::Draining,
            "untrusted" => server.admission = Admission::Untrusted,
            "off" => server.admission = Admission::Off,
            "key" => server.problem = Some(Problem::NeedsKey),
            "host" => server.problem = Some(Problem::WrongHost),
            "sick" => server.problem = Some(Problem::Unhealthy),
            "loading" => server.problem = Some(Problem::Loading),
            "lan" => server.zone = Zone::Lan,
            "cloud" => server.zone = Zone::Cloud,
            "prio-1" => server.priority = -1,
            _ if word.starts_with("weight") => server.weight = word[6..].parse().ok(),
            "limit2" => server.limit = Some(2),
            "limit8" => server.limit = Some(8),
            "loaded" => each(&mut server, |it| it.loaded = Some(true)),
            "cold" => each(&mut server, |it| it.loaded = Some(false)),
            "cloudmodel" => each(&mut server, |it| it.zone = Some(Zone::Cloud)),
            "chat" => able(&mut server, Capability::Chat),
            "embed" => able(&mut server, Capability::Embed),
            "tools" => able(&mut server, Capability::Tools),
            _ if word.starts_with("is=") => server.instance = Some(word[3..].to_owned()),
            _ if word.starts_with("via=") => each(&mut server, |it| it.via.push(word[4..].to_owned())),
            _ if word.starts_with("ctx") => {
                each(&mut server, |it| it.loaded_context_length = word[3..].parse().ok());
            }
            _ if word.starts_with("made") => {
                each(&mut server, |it| it.context_length = word[4..].parse().ok());
            }
            _ if word.starts_with("size") => {
                each(&mut server, |it| it.size_bytes = word[4..].parse().ok());
            }
            _ if word.starts_with("busy+") => {
                server.busy_until = seconds(word, "busy+").map(|it| now + it);
            }
            _ if word.starts_with("down+") => {
                server.standing = Standing::Down;
                server.trial_at = seconds(word, "down+").map(|it| now + it);
            }
            _ => panic!("no word {word}"),
        }
    }
    server
}

fn able(server: &mut Server, capability: Capability) {
    each(server, |it| {
        it.capabilities.insert(capability);
    });
}

fn each(server: &mut Server, change: impl Fn(&mut Model)) {
    for model in &mut server.models {
        change(Arc::make_mut(model));
    }
}

struct World {
    readings: Readings,
    snapshot: Snapshot,
    now: Instant,
    aliases: BTreeMap<String, String>,
    in_flight: HashMap<String, u32>,
    /// Who is told in another language, and who cannot be, with why. All others are told in their own.
    said: HashMap<String, Option<&'static str>>,
    head: Head,
    chains: BTreeMap<String, Vec<String>>,
    fallback: Fallback,
    widened: bool,
    first_model: Option<String>,
    tried: Vec<ServerId>,
    first: Option<ServerId>,
    salt: u64,
    length: Length,
    home: Option<ServerId>,
    /// Which models others use, and at which servers.
    uses: Vec<(&'static str, &'static str)>,
    cloud: bool,
    /// Models in the cloud that may not be paid for.
    unpaid: Vec<&'static str>,
    via: Vec<String>,
}

/// Servers as `id: words`; each has the model `m`.
fn world(servers: &[(&str, &str)]) -> World {
    let now = Instant::now();
    let servers = servers.iter().map(|(id, words)| change(server(id, &["m"]), words, now));
    with(servers.collect())
}

fn with(mut servers: Vec<Server>) -> World {
    servers.sort_by(|a, b| a.id.cmp(&b.id));
    World {
        readings: Readings::default(),
        snapshot: Snapshot { servers: servers.into_iter().map(Arc::new).collect(), ..Default::default() },
        now: Instant::now(),
        aliases: BTreeMap::new(),
        in_flight: HashMap::new(),
        said: HashMap::new(),
        head: Head {
            operation: Operation::Chat,
            model: "m".into(),
            stream: true,
            max_tokens: None,
            needs: Needs::default(),
        },
        chains: BTreeMap::new(),
        fallback: Fallback::Same,
        widened: false,
        first_model: None,
        tried: Vec::new(),
        first: None,
        salt: 1,
        length: Length::default(),
        home: None,
        uses: Vec::new(),
        cloud: false,
        unpaid: Vec::new(),
        via: Vec::new(),
    }
}

impl World {
    fn choose(&self) -> (Decision, Vec<Candidate>) {
        let in_flight = |id: &ServerId| self.in_flight.get(id.as_str()).copied().unwrap_or(0);
        let said = |server: &Server| match self.said.get(server.id.as_str()) {
            None => Ok(Fidelity::Own),
            Some(None) => Ok(Fidelity::Translated),
            Some(Some(why)) => Err((*why).to_owned()),
        };
        let length = || Some(self.length);
        let full = |server: &Server| server.limit.is_some_and(|it| in_flight(&server.id) >= it);
        let uses_others =
            |id: &ServerId, model: &ModelName| self.uses.iter().any(|(at, it)| *id == *at && *model != **it);
        // A model costs what its name is long.
        let price = |_: &Server, model: &Model| Some(Usd::from_nanos(model.name.as_str().len() as u64));
        let pays = |_: &Server, model: &Model| match self.unpaid.iter().any(|it| model.name == **it) {
            true => Err("is too dear".to_owned()),
            false => Ok(()),
        };
        let cloud = self.cloud.then_some(Cloud { price: &price, pays: &pays });
        let ask = self.ask_with(&in_flight);
        let ask = Ask { said: &said, length: &length, full: &full, uses_others: &uses_others, cloud, ..ask };
        choose(&self.snapshot, &ask)
    }

    fn ask_with<'a>(&'a self, in_flight: &'a dyn Fn(&ServerId) -> u32) -> Ask<'a> {
        Ask {
            head: &self.head,
            readings: &self.readings,
            aliases: &self.aliases,
            chains: &self.chains,
            fallback: self.fallback,
            via: &self.via,
            widened: self.widened,
            tried: &self.tried,
            first: self.first.as_ref().or(self.tried.first()),
            first_model: self.first_model.as_deref(),
            in_flight,
            uses_others: &|_, _| false,
            full: &|_| false,
            home: self.home.as_ref(),
            said: &|_| Ok(Fidelity::Own),
            gpu_memory: Some(24),
            cloud: None,
            bytes: 4 * self.length.likely,
            length: &|| None,
            now: self.now,
            salt: self.salt,
        }
    }

    /// The decision in one line.
    fn decide(&self) -> String {
        match self.choose().0 {
            Decision::Server(it) if it.loading => format!("{} {} loading", it.server.id, it.model),
            Decision::Server(it) => format!("{} {}", it.server.id, it.model),
            Decision::Later(until) => {
                format!("later {}", until.saturating_duration_since(self.now).as_secs_f64().round())
            }
            Decision::Full(servers) => {
                let ids: Vec<&str> = servers.iter().map(|it| it.as_str()).collect();
                format!("queue for {}", ids.join(" "))
            }
            Decision::UnknownModel { nearest } => format!("unknown {}", nearest.join(" ")),
            Decision::Lacking(what) => format!("lacking: {what}"),
            Decision::TooLong { tokens, answer, context } => {
                let answer = answer.map(|it| format!("+{it}")).unwrap_or_default();
                format!("too long: {tokens}{answer} > {context}")
            }
            Decision::Nobody(why) => format!("nobody: {why}"),
        }
    }

    fn ask(&mut self, model: &str) -> String {
        self.head.model = model.into();
        self.decide()
    }
}

#[track_caller]
fn check(servers: &[(&str, &str)], expected: &str) {
    assert_eq!(world(servers).decide(), expected, "{servers:?}");
}

#[test]
fn standing_comes_first() {
    check(&[("a", "suspect"), ("b", "")], "b m");
    check(&[("a", "trial"), ("b", "suspect")], "b m");
    check(&[("a", "due"), ("b", "trial")], "b m");
    check(&[("a", "suspect"), ("b", "loading")], "a m");
    check(&[("a", "loading"), ("b", "due")], "a m loading");
    check(&[("a", "suspect prio-1 loaded"), ("b", "lan cold")], "b m loading");
}

#[test]
fn then_priority_zone_and_warmth() {
    check(&[("a", ""), ("b", "prio-1")], "b m");
    check(&[("a", "lan"), ("b", "")], "b m");
    check(&[("a", "lan prio-1"), ("b", "")], "a m");
    check(&[("a", "cold"), ("b", "loaded")], "b m");
    check(&[("a", "cold"), ("b", "")], "b m");
    check(&[("a", ""), ("b", "loaded")], "b m");
    check(&[("a", "loaded lan"), ("b", "cold")], "b m loading");
}

#[test]
fn a_model_that_others_use_is_not_unloaded_while_somebody_else_can_answer() {
    let mut world = world(&[("a", "cold"), ("b", "cold")]);
    while world.decide() != "a m loading" {
        world.salt += 1;
    }
    world.uses = vec![("a", "other")];
    assert_eq!(world.decide(), "b m loading");
    // Who waits for the same model already has it loaded for all.
    world.uses = vec![("a", "m")];
    assert_eq!(world.decide(), "a m loading");
    world.uses = vec![("a", "other"), ("b", "other")];
    assert_eq!(world.decide(), "a m loading", "somebody has to");
}

#[test]
fn no_model_is_pushed_out_of_the_memory_that_servers_share_while_a_loaded_one_can_answer() {
    // Better placed, but there is no room for it beside the other.
    check(&[("a", "cold prio-1 size16"), ("b", "loaded size16")], "b m");
    check(&[("a", "cold prio-1 size16"), ("b", "loaded suspect size16")], "b m");
    check(&[("a", "cold prio-1 size8"), ("b", "loaded size16")], "a m loading");
    check(&[("a", "cold prio-1"), ("b", "loaded size16")], "a m loading");
    check(&[("a", "cold prio-1 size16"), ("b", "loaded")], "a m loading");
    // What another machine has loaded, or one that is gone had, is in nobody's way.
    check(&[("a", "cold size16"), ("b", "loaded size16 lan")], "a m loading");
    check(&[("a", "cold size16"), ("b", "loaded size16 due")], "a m loading");
    check(&[("a", "cold size16"), ("b", "loaded size16 draining")], "a m loading");
}

#[test]
fn who_has_enough_to_do_gets_no_more_and_load_weighs_less_than_priority() {
    let mut world = world(&[("a", "limit2 prio-1"), ("b", "limit2")]);
    let mut at = |a: u32, b: u32| {
        world.in_flight = HashMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        world.decide()
    };
    assert_eq!(at(1, 0), "a m");
    assert_eq!(at(2, 0), "b m");
    assert_eq!(at(2, 2), "queue for a b");
    assert_eq!(at(9, 1), "b m");
    let mut equal = self::world(&[("a", ""), ("b", "")]);
    equal.in_flight.insert("a".into(), 1);
    assert_eq!(equal.decide(), "b m");
}

#[test]
fn load_is_measured_by_what_a_server_can_do_at_once() {
    let mut world = world(&[("a", "limit2"), ("b", "limit8"), ("c", "")]);
    let mut at = |a: u32, b: u32, c: u32| {
        world.in_flight = HashMap::from([("a".to_owned(), a), ("b".to_owned(), b), ("c".to_owned(), c)]);
        world.decide()
    };
    assert_eq!(at(1, 3, 2), "b m");
    assert_eq!(at(1, 5, 3), "a m");
    assert_eq!(at(1, 4, 1), "c m");
    assert_eq!(at(2, 7, 9), "b m");
}

#[test]
fn nobody_gets_everything_only_because_more_is_known_of_it() {
    let mut world = world(&[("a", "loaded chat"), ("b", ""), ("c", "cold chat")]);
    world.said.insert("b".into(), None);
    let mut at = |a: u32, b: u32| {
        world.in_flight = HashMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        world.decide()
    };
    assert_eq!(at(3, 0), "a m");
    assert_eq!(at(4, 0), "b m", "it has as much as servers usually work on at once");
    assert_eq!(at(4, 3), "b m");
    assert_eq!(at(5, 4), "a m");
    assert_eq!(at(9, 9), "a m", "a model is not loaded for that");
}

#[test]
fn a_conversation_stays_at_home_among_equals_unless_that_is_overloaded() {
    let mut world = world(&[("a", ""), ("b", ""), ("c", "limit8")]);
    let mut at = |home: &str, a: u32, b: u32, c: u32| {
        world.home = Some(home.into());
        world.in_flight = HashMap::from([("a".to_owned(), a), ("b".to_owned(), b), ("c".to_owned(), c)]);
        world.decide()
    };
    assert_eq!(at("a", 0, 0, 0), "a m");
    assert_eq!(at("b", 0, 0, 0), "b m");
    assert_eq!(at("b", 0, 1, 0), "c m", "nobody stands in line while another is idle");
    assert_eq!(at("b", 4, 6, 5), "b m");
    assert_eq!(at("b", 4, 7, 6), "c m");
    assert_eq!(at("c", 0, 0, 7), "c m", "it works on eight at once");
    assert_eq!(at("c", 0, 1, 8), "a m");
    assert_eq!(at("gone", 1, 1, 1), "c m");
    let at_b = |servers: &[(&str, &str)]| World { home: Some("b".into()), ..self::world(servers) }.decide();
    assert_eq!(at_b(&[("a", ""), ("b", "suspect")]), "a m");
    assert_eq!(at_b(&[("a", "prio-1"), ("b", "")]), "a m");
    assert_eq!(at_b(&[("a", "loaded"), ("b", "cold")]), "a m", "it has nothing any more");
}

#[test]
fn a_queue_makes_the_same_model_win_under_another_name_and_no_other_model() {
    let mut servers = vec![server("a", &["qwen3:8b"]), server("b", &["Qwen/Qwen3-8B"]), server("c", &["x"])];
    servers[0].limit = Some(1);
    servers[1].limit = Some(1);
    let mut world = with(servers);
    (world.head.model, world.fallback) = ("qwen3:8b".into(), Fallback::Local);
    world.in_flight.insert("a".into(), 1);
    assert_eq!(world.decide(), "b Qwen/Qwen3-8B");
    world.in_flight.insert("b".into(), 1);
    assert_eq!(world.decide(), "queue for a b");
    world.fallback = Fallback::None;
    assert_eq!(world.decide(), "queue for a");
}

#[test]
fn who_is_full_is_waited_for_before_who_is_busy_or_down_is_bothered() {
    let at = |servers: &[(&str, &str)]| {
        let mut world = world(servers);
        world.in_flight.insert("a".into(), 2);
        world.decide()
    };
    assert_eq!(at(&[("a", "limit2"), ("b", "down+5")]), "queue for a");
    assert_eq!(at(&[("a", "limit2"), ("b", "busy+5")]), "queue for a");
    assert_eq!(at(&[("a", "limit2"), ("b", "due")]), "b m");
    assert_eq!(
        at(&[("a", "limit2 embed")]),
        "lacking: no server can take `m` now: a has it, but not for chat"
    );
}

#[test]
fn a_translation_is_second_only_among_equals() {
    let check = |servers: &[(&str, &str)], expected: &str| {
        let mut world = world(servers);
        world.said.insert("a".into(), None);
        for salt in 0..20 {
            world.salt = salt;
            assert_eq!(world.decide(), expected, "{servers:?}");
        }
    };
    check(&[("a", ""), ("b", "")], "b m");
    check(&[("a", "loaded"), ("b", "")], "a m");
    check(&[("a", "prio-1"), ("b", "loaded")], "a m");
    check(&[("a", ""), ("b", "suspect")], "a m");
    check(&[("a", "")], "a m");
    let mut world = world(&[("a", ""), ("b", "")]);
    (world.said, world.in_flight) = ([("a".into(), None)].into(), [("b".into(), 3)].into());
    assert_eq!(world.decide(), "b m", "it weighs more than load");
    world.in_flight.insert("b".into(), 4);
    assert_eq!(world.decide(), "a m", "but nobody stands in line for it");
}

#[test]
fn who_cannot_be_told_is_not_asked_and_the_field_is_named() {
    const WHY: &str = "`n` cannot be said to Ollama";
    let mut world = world(&[("a", ""), ("b", "suspect")]);
    world.said.insert("a".into(), Some(WHY));
    let (decision, candidates) = world.choose();
    assert!(matches!(decision, Decision::Server(it) if it.server.id == "b"));
    assert_eq!(candidates[1].excluded.as_deref(), Some("cannot be told: `n` cannot be said to Ollama"));
    world.said.insert("b".into(), Some(WHY));
    assert_eq!(world.decide(), format!("lacking: {WHY}"), "said once");
    world.said.insert("b".into(), Some("`x` cannot either"));
    assert_eq!(world.decide(), format!("lacking: {WHY}; `x` cannot either"));
}

#[test]
fn what_cannot_be_said_is_not_hidden_by_what_will_pass_and_hides_nothing_that_lasts() {
    let check = |words: &str, expected: &str| {
        let mut world = world(&[("a", words)]);
        world.said.insert("a".into(), Some("`n` cannot"));
        assert_eq!(world.decide(), expected, "{words}");
    };
    check("busy+7", "lacking: `n` cannot");
    check("down+5", "lacking: `n` cannot");
    check("key", "nobody: no server can take `m` now: a needs a key");
    check("embed", "lacking: no server can take `m` now: a has it, but not for chat");
}

#[test]
fn nobody_is_asked_how_it_is_told_who_could_not_serve_anyway() {
    let world = world(&[("a", "key"), ("b", "embed"), ("c", "untrusted"), ("d", ""), ("e", "busy+3")]);
    let told = std::cell::RefCell::new(Vec::new());
    let said = |server: &Server| {
        told.borrow_mut().push(server.id.to_string());
        Ok(Fidelity::Own)
    };
    choose(&world.snapshot, &Ask { said: &said, ..world.ask_with(&|_| 0) });
    assert_eq!(told.into_inner(), ["d", "e"]);
}

#[test]
fn who_may_not_be_asked_is_not_asked() {
    for (word, why) in [
        ("untrusted", "is not trusted"),
        ("draining", "is draining (`lovablectl servers resume` ends that)"),
        ("off", "is switched off in the configuration"),
        ("cloud", "is in the cloud, which is not enabled"),
        ("cloudmodel", "only forwards this model to the cloud, which is not enabled"),
        ("key", "needs a key"),
        ("host", "refuses the name that it is called by"),
        ("sick", "reports itself unhealthy"),
        ("displaced", "is gone; something else answers at its address"),
    ] {
        check(&[("a", word)], &format!("nobody: no server can take `m` now: a {why}"));
        check(&[("a", word), ("b", "due")], "b m");
    }
}

#[test]
fn what_every_server_with_the_model_lacks_is_said() {
    check(&[("a", "embed")], "lacking: no server can take `m` now: a has it, but not for chat");
    check(&[("a", "embed"), ("b", "due")], "b m");
    check(
        &[("a", "embed"), ("b", "key")],
        "nobody: no server can take `m` now: a has it, but not for chat; b needs a key",
    );
}

#[test]
fn without_a_stand_in_the_same_server_is_asked_again_and_no_other() {
    let mut world = world(&[("a", "due"), ("b", "")]);
    world.fallback = Fallback::None;
    world.first = Some("a".into());
    assert_eq!(world.decide(), "a m");
}

#[test]
fn a_busy_server_is_waited_for_when_nobody_else_is_left() {
    check(&[("a", "busy+7")], "later 7");
    check(&[("a", "busy+7"), ("b", "busy+3"), ("c", "key")], "later 3");
    check(&[("a", "busy+7"), ("b", "suspect")], "b m");
    check(&[("a", "busy+7"), ("b", "due")], "b m");
    check(&[("a", "busy+7"), ("b", "down+5")], "later 7");
    check(&[("a", "busy+0")], "a m");
}

#[test]
fn a_resting_server_is_asked_when_nothing_else_is_left() {
    check(&[("a", "down+5")], "a m");
    check(&[("a", "down+5"), ("b", "key")], "a m");
    check(&[("a", "down+5"), ("b", "down+5 prio-1")], "b m");
    check(&[("a", "down+5"), ("b", "loading")], "b m loading");
    check(&[("a", "down+5 untrusted")], "nobody: no server can take `m` now: a is not trusted");
}

#[test]
fn a_resting_server_that_has_all_it_may_have_is_waited_for() {
    let mut world = world(&[("a", "down+5 limit2"), ("b", "down+5 prio-1")]);
    world.in_flight.insert("a".into(), 2);
    assert_eq!(world.decide(), "b m");
    world.tried = vec!["b".into()];
    assert_eq!(world.decide(), "queue for a");
}

#[test]
fn one_request_at_a_time_tries_a_server_on_trial() {
    let mut world = world(&[("a", "trial"), ("b", "due"), ("c", "loading")]);
    assert_eq!(world.decide(), "a m");
    world.in_flight.insert("a".into(), 1);
    assert_eq!(world.decide(), "c m loading");
    world.tried = vec!["c".into()];
    assert_eq!(world.decide(), "b m");
    world.in_flight.insert("b".into(), 1);
    assert_eq!(world.decide(), "a m", "nothing else is left");
}

#[test]
fn now_and_then_a_request_tries_a_server_on_trial_although_others_are_up() {
    let mut world = world(&[("a", "trial"), ("b", "")]);
    world.in_flight.insert("b".into(), 1);
    let mut tried = 0;
    for salt in 0..1600 {
        world.salt = salt;
        tried += usize::from(world.decide() == "a m");
    }
    assert_eq!(tried, 100);
}

#[test]
fn each_server_is_tried_once() {
    let mut world = world(&[("a", ""), ("b", "suspect"), ("c", "due"), ("d", "down+9")]);
    for expected in ["a m", "b m", "c m", "d m"] {
        assert_eq!(world.decide(), expected);
        world.tried.push(expected[..1].into());
    }
    assert!(world.decide().starts_with("nobody: no server can take `m` now: a was tried already; b was"));
}

#[test]
fn with_fallback_none_only_the_best_is_asked() {
    let mut world = world(&[("a", ""), ("b", "suspect")]);
    world.fallback = Fallback::None;
    assert_eq!(world.decide(), "a m");
    world.tried.push("a".into());
    let why = "a was tried already; b may not stand in (fallback `none`)";
    assert_eq!(world.decide(), format!("nobody: no server can take `m` now: {why}"));
}

#[test]
fn names_are_found_in_the_contracts_order() {
    let mut world = with(vec![
        server("ollama", &["qwen3:8b", "llama3:latest", "Big/Model"]),
        server("vllm-8001", &["openai/gpt-oss-20b", "qwen3:8b", "ollama/odd", "x@ollama"]),
        server("lmstudio", &["qwen3-8b@q4_k_m"]),
    ]);
    world.aliases =
        [("gpt-5", "llama3"), ("fast", "gpt-5"), ("qwen3-8b@q4_k_m", "llama3"), ("a", "b"), ("b", "a")]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .into();
    for (asked, expected) in [
        ("gpt-5", "ollama llama3:latest"),
        ("fast", "ollama llama3:latest"),
        ("qwen3-8b@q4_k_m", "ollama llama3:latest"),
        ("llama3:latest", "ollama llama3:latest"),
        ("openai/gpt-oss-20b", "vllm-8001 openai/gpt-oss-20b"),
        ("ollama/odd", "vllm-8001 ollama/odd"),
        ("x@ollama", "vllm-8001 x@ollama"),
        ("vllm/qwen3:8b", "vllm-8001 qwen3:8b"),
        ("qwen3:8b@ollama", "ollama qwen3:8b"),
        ("llama3@ollama", "ollama llama3:latest"),
        ("ollama/Big/Model", "ollama Big/Model"),
        ("vllm/openai/gpt-oss-20b", "vllm-8001 openai/gpt-oss-20b"),
        ("big/model", "ollama Big/Model"),
        ("LLAMA3", "ollama llama3:latest"),
        ("vllm/llama3", "unknown llama3:latest x@ollama"),
        ("llama3@vllm-8001", "unknown llama3:latest x@ollama"),
        ("a", "unknown "),
        ("zzzzzz", "unknown "),
    ] {
        assert_eq!(world.ask(asked), expected, "{asked}");
    }
}

#[test]
fn only_ollama_leaves_latest_out() {
    let mut world = with(vec![server("vllm-1", &["m:latest"])]);
    assert_eq!(world.ask("m"), "unknown m:latest");
    let mut world = with(vec![
        server("ollama", &["m:latest"]),
        change(server("vllm-1", &["m"]), "suspect", Instant::now()),
    ]);
    assert_eq!(world.ask("m"), "vllm-1 m", "the very name wins over a strike");
    world.tried.push("vllm-1".into());
    assert_eq!(world.ask("m"), "ollama m:latest");
}

#[test]
fn a_servers_own_alias_is_a_name() {
    let mut aliased = server("vllm-1", &["org/model"]);
    each(&mut aliased, |it| it.aliases.push("short".into()));
    assert_eq!(with(vec![aliased]).ask("short"), "vllm-1 org/model");
}

#[test]
fn a_pin_asks_only_the_pinned() {
    let mut world = world(&[("vllm-1", "down+5"), ("ollama", ""), ("vllm-2", "key")]);
    assert_eq!(world.ask("m@vllm-1"), "vllm-1 m");
    assert_eq!(world.ask("vllm/m"), "vllm-1 m");
    assert_eq!(world.ask("m@vllm-2"), "nobody: no server can take `m@vllm-2` now: vllm-2 needs a key");
}

#[test]
fn strangers_give_no_name_a_meaning() {
    let now = Instant::now();
    let stranger = change(server("x", &["auto", "vllm/m", "m@vllm"]), "untrusted", now);
    let mut world = with(vec![stranger, server("vllm", &["m"])]);
    assert_eq!(world.ask("auto"), "vllm m");
    assert_eq!(world.ask("vllm/m"), "vllm m");
    assert_eq!(world.ask("m@vllm"), "vllm m");
    let mut world = with(vec![change(server("x", &["theirs"]), "untrusted", now), server("vllm", &["m"])]);
    assert_eq!(world.ask("theirs"), "nobody: no server can take `theirs` now: x is not trusted");
    assert_eq!(world.ask("their"), "unknown ");
}

#[test]
fn typos_get_the_nearest_names_and_former_names_are_none() {
    let names = ["qwen3:8b", "qwen3:14b", "qwen3-coder:30b", "llama3.2:3b", "nomic-embed-text"];
    let mut world = with(vec![server("ollama", &names)]);
    assert_eq!(world.ask("qwen3:8"), "unknown qwen3:8b qwen3:14b qwen3-coder:30b");
    assert_eq!(world.ask("lama3.2"), "unknown llama3.2:3b");
    assert_eq!(world.ask(""), "unknown ");
    world.snapshot.formerly = Arc::new(BTreeSet::from(["old".into()]));
    assert_eq!(world.ask("old"), "nobody: `old` was here, but no server offers it any more");
}

#[test]
fn without_servers_the_name_is_not_to_blame() {
    assert_eq!(with(vec![]).decide(), "nobody: no model server was found yet; see `lovablectl servers`");
    let why = "nobody: no server has said yet which models it has; see `lovablectl servers`";
    assert_eq!(with(vec![server("a", &[])]).decide(), why);
    assert!(with(vec![]).ask("auto").starts_with("nobody: no model server with a usable model"));
}

#[test]
fn auto_takes_what_suits_and_stays_with_it() {
    let now = Instant::now();
    let mut chat = change(server("ollama", &["z", "nomic-embed-text"]), "", now);
    each(&mut chat, |it| {
        let embeds = it.name == "nomic-embed-text";
        it.capabilities.insert(if embeds { Capability::Embed } else { Capability::Chat });
    });
    let mut world = with(vec![chat, server("vllm", &["a", "bge-m3"])]);
    for salt in 0..50 {
        world.salt = salt;
        assert_eq!(world.ask("auto"), "ollama z", "it says that it can chat");
    }
    world.head.operation = Operation::Embed;
    assert_eq!(world.ask("auto"), "ollama nomic-embed-text");
    world.tried.push("ollama".into());
    assert_eq!(world.ask("auto"), "vllm bge-m3");
    world.head.operation = Operation::Chat;
    assert_eq!(world.ask("auto"), "vllm a");
    let warm = change(server("b", &["y"]), "loaded", now);
    assert_eq!(with(vec![server("a", &["x"]), warm]).ask("auto"), "b y");
}

#[test]
fn what_a_model_is_known_not_to_do_is_not_asked_of_it() {
    let mut world = world(&[("a", "chat"), ("b", "chat tools suspect"), ("c", "trial")]);
    assert_eq!(world.decide(), "a m");
    world.head.needs.tools = true;
    assert_eq!(world.decide(), "b m");
    world.head.needs.vision = true;
    assert_eq!(world.decide(), "c m", "nobody knows what it can do");
    world.head.needs = Needs { fim: true, ..Needs::default() };
    world.head.operation = Operation::Complete;
    assert_eq!(world.decide(), "c m");
    world.head.operation = Operation::Embed;
    assert_eq!(world.decide(), "c m");
}

#[test]
fn every_server_with_the_model_is_listed_the_chosen_one_first() {
    let world = world(&[("a", "key"), ("b", "suspect"), ("c", "")]);
    let (_, candidates) = world.choose();
    let shown: Vec<String> = candidates
        .iter()
        .map(|it| format!("{} {}", it.server, it.excluded.as_deref().unwrap_or("ok")))
        .collect();
    assert_eq!(shown, ["c ok", "b ok", "a needs a key"]);
}

#[test]
fn equals_share_the_work() {
    let mut world = world(&[("vllm-8001", ""), ("vllm-8002", ""), ("vllm-8003", "")]);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for salt in 0..3000 {
        world.salt = salt;
        *counts.entry(world.decide()).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|it| (800..1200).contains(it)), "{counts:?}");
}

#[test]
fn a_fallback_is_read_and_written() {
    for text in ["none", "same", "local", "cloud"] {
        assert_eq!(text.parse::<Fallback>().unwrap().to_string(), text);
    }
    assert_eq!("Same ".parse(), Ok(Fallback::Same));
    assert!("far".parse::<Fallback>().is_err());
}

fn any_world() -> impl Strategy<Value = World> {
    let words = select(vec![
        "",
        "",
        "suspect",
        "trial",
        "due",
        "down+5",
        "displaced",
        "draining",
        "untrusted",
        "off",
        "cloud",
        "key",
        "loading",
        "busy+3",
        "lan",
        "prio-1",
        "limit2",
        "cloudmodel",
        "cold",
        "ctx1000",
        "ctx3000",
        "made9000",
    ]);
    let models = select(vec![
        vec!["m"],
        vec!["m", "n"],
        vec!["n"],
        vec!["m:latest"],
        vec!["M"],
        vec![],
        vec!["qwen3:8b"],
        vec!["Qwen/Qwen3-8B"],
        vec!["qwen3-8b@q4_k_m", "m"],
        vec!["llama3.1:8b"],
    ]);
    let said = select(vec![None, None, Some(None), Some(Some("why"))]);
    let one = (models, prop::collection::vec(words, 0..3), any::<bool>(), 0..3u32, said);
    let asked =
        select(vec!["m", "n", "auto", "ollama/m", "m@ollama-1", "nothing", "qwen3:8b", "Qwen/Qwen3-8B"]);
    let fallback = select(vec![Fallback::None, Fallback::Same, Fallback::Local, Fallback::Cloud]);
    let wish = (asked, fallback, any::<bool>(), any::<bool>());
    (prop::collection::vec(one, 0..6), wish, any::<u64>()).prop_map(
        |(all, (asked, fallback, widened, chained), salt)| {
            let now = Instant::now();
            let mut world = with(Vec::new());
            for (at, (models, words, tried, in_flight, said)) in all.into_iter().enumerate() {
                let id = format!("ollama-{at}");
                world.snapshot.servers.push(Arc::new(change(server(&id, &models), &words.join(" "), now)));
                world.in_flight.insert(id.clone(), in_flight);
                world.said.extend(said.map(|it| (id.clone(), it)));
                if tried {
                    world.tried.push(id.into());
                }
            }
            (world.now, world.fallback, world.salt, world.head.model) = (now, fallback, salt, asked.into());
            world.widened = widened;
            let least = salt % 4000;
            world.length = Length { least, likely: least + least / 4, context: None };
            if chained {
                world.chains.insert("qwen3:8b".into(), vec!["n".into(), "m".into()]);
            }
            world
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_was_tried_or_is_full_or_may_not_or_cannot_serve_is_never_chosen(world in any_world()) {
        let (decision, candidates) = world.choose();
        let servers: BTreeSet<&ServerId> = candidates.iter().map(|it| &it.server).collect();
        prop_assert_eq!(servers.len(), candidates.len(), "each server is listed once");
        if let Decision::Server(choice) = decision {
            let server = choice.server;
            prop_assert!(!world.tried.contains(&server.id));
            // Else the search for a place would not end.
            prop_assert!(server.limit.is_none_or(|it| world.in_flight[server.id.as_str()] < it));
            prop_assert!(!matches!(world.said.get(server.id.as_str()), Some(Some(_))));
            prop_assert_eq!(server.admission, Admission::Open);
            prop_assert!(server.zone != Zone::Cloud);
            prop_assert!(matches!(server.problem, None | Some(Problem::Loading)));
            prop_assert!(server.standing != Standing::Down || server.trial_at.is_some());
            let model = server.models.iter().find(|it| it.name == choice.model).unwrap();
            prop_assert!(model.zone != Some(Zone::Cloud));
            prop_assert_eq!(&candidates[0].server, &server.id);
        }
    }

    #[test]
    fn no_stand_in_goes_beyond_the_limit_or_the_pin(world in any_world()) {
        let Decision::Server(choice) = world.choose().0 else { return Ok(()) };
        let farthest = match world.fallback {
            Fallback::None => Substitution::No,
            Fallback::Same => Substitution::Equivalent,
            Fallback::Local | Fallback::Cloud => Substitution::Alternative,
        };
        prop_assert!(choice.substituted <= farthest, "{:?}", choice);
        let open = world.widened && world.fallback != Fallback::None;
        if world.head.model == "m@ollama-1" && !open {
            prop_assert_eq!(choice.server.id.as_str(), "ollama-1");
        }
    }

    #[test]
    fn no_other_model_answers_while_a_nearer_one_can(mut world in any_world()) {
        let (Decision::Server(choice), candidates) = world.choose() else { return Ok(()) };
        if choice.substituted != Substitution::No {
            let exact = candidates.iter().filter(|it| it.model == world.head.model.as_str());
            prop_assert!(exact.clone().all(|it| it.excluded.is_some()), "{:?}", candidates);
        }
        if choice.substituted == Substitution::Alternative {
            world.fallback = Fallback::Same;
            // One that rests may be asked when nothing else is left.
            let rests = |it: &Choice| matches!(it.server.standing, Standing::Down | Standing::Trial);
            let nearer = world.choose().0;
            prop_assert!(!matches!(&nearer, Decision::Server(it) if !rests(it)), "{:?}", nearer);
        }
    }

    #[test]
    fn the_order_is_total(world in any_world()) {
        let (_, candidates) = world.choose();
        let mut turned = World { snapshot: world.snapshot.clone(), ..world };
        turned.snapshot.servers.reverse();
        let able = |all: Vec<Candidate>| -> Vec<Candidate> {
            all.into_iter().filter(|it| it.excluded.is_none()).collect()
        };
        prop_assert_eq!(able(candidates), able(turned.choose().1));
    }

    #[test]
    fn the_same_inputs_give_the_same_decision(world in any_world()) {
        prop_assert_eq!(format!("{:?}", world.choose()), format!("{:?}", world.choose()));
    }

    /// While the model that was asked for can be had by its very name, trouble
    /// of any size short of being out makes no other one win.
    #[test]
    fn a_strike_never_makes_a_different_model_win(mut world in any_world(), at in 0..6usize) {
        world.head.model = "m".into();
        world.length = Length::default();
        let Some(asked) = world.snapshot.servers.get(at) else { return Ok(()) };
        let struck = Server {
            standing: Standing::Suspect,
            busy_until: None,
            limit: None,
            problem: None,
            zone: Zone::Machine,
            admission: Admission::Open,
            models: vec![Arc::new(Model::named("m"))],
            ..(**asked).clone()
        };
        world.tried.clear();
        world.said.remove(struck.id.as_str());
        world.snapshot.servers[at] = Arc::new(struck);
        let Decision::Server(choice) = world.choose().0 else { panic!("one can answer") };
        prop_assert_eq!(choice.model, "m");
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let servers = self
            .snapshot
            .servers
            .iter()
            .map(|it| (&it.id, it.standing, it.admission, it.problem, &it.models));
        write!(f, "{} {:?} {:?} {:?}", self.head.model, self.tried, self.salt, servers.collect::<Vec<_>>())
    }
}
