//! Who in the cloud may answer, and when.

use super::*;

/// Two servers here, and two that sell answers. `gpt-oss-20b` is both here and there.
fn both() -> World {
    let now = Instant::now();
    let far = |id: &str, models: &[&str]| change(server(id, models), "cloud", now);
    let mut world = with(vec![
        server("ollama", &["qwen3:8b", "gpt-oss-20b"]),
        far("groq", &["Qwen/Qwen3-32B"]),
        far("openai", &["gpt-5", "gpt-5-mini"]),
        far("openrouter", &["openai/gpt-5", "gpt-oss-20b", "qwen3:8b", "qwen3:32b"]),
    ]);
    world.cloud = true;
    world
}

/// Who answers a name, with how it is called, for one way to fall back.
fn who(world: &mut World, model: &str, fallback: Fallback) -> String {
    world.fallback = fallback;
    world.head.model = model.into();
    match world.choose().0 {
        Decision::Server(it) => {
            format!("{} {} {:?} {}", it.server.id, it.model, it.substituted, it.zone.as_str())
        }
        Decision::Nobody(why) => format!("nobody: {why}"),
        other => format!("{other:?}"),
    }
}

fn replace(world: &mut World, server: Server) {
    let at = world.snapshot.servers.iter().position(|it| it.id == server.id).unwrap();
    world.snapshot.servers[at] = Arc::new(server);
}

fn down(world: &mut World, id: &str) {
    let server = Server::clone(world.snapshot.server(id).unwrap());
    replace(world, change(server, "down+60", world.now));
}

#[test]
fn nothing_makes_the_cloud_answer_unless_it_is_enabled() {
    let mut world = both();
    world.cloud = false;
    down(&mut world, "ollama");
    for model in ["gpt-5", "openai/gpt-5", "gpt-5@openai", "auto", "qwen3:8b"] {
        for fallback in [Fallback::None, Fallback::Same, Fallback::Local, Fallback::Cloud] {
            let who = who(&mut world, model, fallback);
            assert!(!who.contains("cloud\n") && !who.ends_with(" cloud"), "{model} {fallback}: {who}");
        }
    }
    assert_eq!(
        who(&mut world, "gpt-5-mini", Fallback::Same),
        "nobody: no server can take `gpt-5-mini` now: openai is in the cloud, which is not enabled"
    );
}

#[test]
fn a_name_that_only_the_cloud_has_is_answered_there() {
    let mut world = both();
    for fallback in [Fallback::None, Fallback::Same, Fallback::Local, Fallback::Cloud] {
        assert_eq!(who(&mut world, "gpt-5-mini", fallback), "openai gpt-5-mini No cloud", "{fallback}");
    }
    assert_eq!(who(&mut world, "gpt-5@openai", Fallback::Same), "openai gpt-5 No cloud");
    assert_eq!(who(&mut world, "openrouter/qwen3:8b", Fallback::Same), "openrouter qwen3:8b No cloud");
    world.tried = vec!["openrouter".into()];
    assert_eq!(who(&mut world, "qwen3:32b", Fallback::Same), "groq Qwen/Qwen3-32B Equivalent cloud");
    // Another model of the cloud is not what was asked for.
    world.tried.push("groq".into());
    assert_eq!(who(&mut world, "qwen3:32b", Fallback::Local), "ollama qwen3:8b Alternative machine");
}

#[test]
fn a_name_that_is_here_as_well_goes_to_the_cloud_only_when_that_was_said() {
    let mut world = both();
    assert_eq!(who(&mut world, "gpt-oss-20b", Fallback::Cloud), "ollama gpt-oss-20b No machine");
    down(&mut world, "ollama");
    for fallback in [Fallback::None, Fallback::Same, Fallback::Local] {
        assert_eq!(who(&mut world, "gpt-oss-20b", fallback), "ollama gpt-oss-20b No machine", "{fallback}");
    }
    assert_eq!(who(&mut world, "gpt-oss-20b", Fallback::Cloud), "openrouter gpt-oss-20b Cloud cloud");
}

#[test]
fn what_stands_in_from_the_cloud_is_the_same_or_the_cheapest() {
    let mut world = both();
    replace(&mut world, change(server("ollama", &["llama3.2:3b"]), "down+60", Instant::now()));
    assert_eq!(who(&mut world, "llama3.2:3b", Fallback::Cloud), "openai gpt-5 Cloud cloud");
    world.unpaid = vec!["gpt-5", "gpt-5-mini"];
    assert_eq!(who(&mut world, "llama3.2:3b", Fallback::Cloud), "openrouter qwen3:8b Cloud cloud");
    world.chains = [("llama3.2:3b".to_owned(), vec!["openai/gpt-5".to_owned()])].into();
    assert_eq!(who(&mut world, "llama3.2:3b", Fallback::Cloud), "openrouter openai/gpt-5 Cloud cloud");
}

#[test]
fn the_choice_that_is_left_to_us_is_made_here_first() {
    let mut world = both();
    assert_eq!(who(&mut world, "auto", Fallback::Cloud), "ollama gpt-oss-20b No machine");
    down(&mut world, "ollama");
    assert_eq!(who(&mut world, "auto", Fallback::Cloud), "openai gpt-5 Cloud cloud");
    assert!(who(&mut world, "auto", Fallback::Local).starts_with("ollama"), "a last resort");
}

#[test]
fn what_may_not_be_paid_for_is_not_asked_and_says_why() {
    let mut world = both();
    world.unpaid = vec!["gpt-5-mini"];
    let why = "nobody: no server can take `gpt-5-mini` now: openai is too dear";
    assert_eq!(who(&mut world, "gpt-5-mini", Fallback::Same), why);
}

#[test]
fn a_model_that_an_ollama_forwards_is_in_the_cloud_as_well() {
    let mut world = both();
    replace(&mut world, change(server("ollama", &["big:cloud"]), "cloudmodel", Instant::now()));
    assert_eq!(who(&mut world, "big:cloud", Fallback::Same), "ollama big:cloud No cloud");
    world.cloud = false;
    let why = "nobody: no server can take `big:cloud` now: ollama only forwards this model to the cloud, which is not enabled";
    assert_eq!(who(&mut world, "big:cloud", Fallback::Same), why);
}
