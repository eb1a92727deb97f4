//! Which models answer for others, and in which order.

use super::*;

/// Two servers that call one model differently, and two other models.
fn names() -> World {
    with(vec![
        server("ollama", &["qwen3:8b"]),
        server("vllm", &["Qwen/Qwen3-8B"]),
        server("lmstudio", &["qwen3-14b", "llama-3.1-8b-instruct"]),
    ])
}

/// What is asked first, second and so on, each with how far it is from what was asked.
fn order(world: &mut World, asked: &str) -> Vec<String> {
    world.head.model = asked.into();
    world.tried.clear();
    let mut all = Vec::new();
    while let Decision::Server(choice) = world.choose().0 {
        world.tried.push(choice.server.id.clone());
        let how = match choice.substituted {
            Substitution::No => "",
            Substitution::Equivalent => "equivalent ",
            Substitution::Alternative => "alternative ",
            Substitution::Cloud => "cloud ",
        };
        all.push(format!("{how}{} {}", choice.server.id, choice.model));
    }
    all
}

const SAME: [&str; 2] = ["ollama qwen3:8b", "equivalent vllm Qwen/Qwen3-8B"];
const LOCAL: [&str; 3] = [SAME[0], SAME[1], "alternative lmstudio qwen3-14b"];

#[test]
fn stand_ins_come_from_the_nearest_to_the_farthest_and_stop_where_they_must() {
    let mut world = names();
    for (fallback, expected) in [
        (Fallback::None, &LOCAL[..1]),
        (Fallback::Same, &LOCAL[..2]),
        (Fallback::Local, &LOCAL[..]),
        (Fallback::Cloud, &LOCAL[..]),
    ] {
        world.fallback = fallback;
        assert_eq!(order(&mut world, "qwen3:8b"), expected, "{fallback}");
    }
    let other = ["vllm Qwen/Qwen3-8B", "equivalent ollama qwen3:8b", LOCAL[2]];
    assert_eq!(order(&mut world, "Qwen/Qwen3-8B"), other);
}

#[test]
fn an_equivalent_is_asked_only_when_nobody_with_the_name_can_answer() {
    let mut world = names();
    let change_it = |world: &mut World, words: &str| {
        let changed = change(server("ollama", &["qwen3:8b"]), words, world.now);
        world.snapshot.servers[1] = Arc::new(changed);
        world.ask("qwen3:8b")
    };
    for words in ["suspect", "suspect prio-1 lan", "limit2", "cold", "loading", "due"] {
        assert!(change_it(&mut world, words).starts_with("ollama qwen3:8b"), "{words}");
    }
    for words in ["down+5", "busy+5", "key", "draining", "off", "embed", "displaced"] {
        assert_eq!(change_it(&mut world, words), "vllm Qwen/Qwen3-8B", "{words}");
    }
}

#[test]
fn a_chain_comes_before_what_merely_could() {
    let mut world = names();
    world.fallback = Fallback::Local;
    world.aliases.insert("mine".into(), "llama-3.1-8b-instruct".into());
    world.chains.insert("qwen3:8b".into(), vec!["nobody-has-it".into(), "mine".into()]);
    let chained = "alternative lmstudio llama-3.1-8b-instruct";
    assert_eq!(order(&mut world, "qwen3:8b"), [SAME[0], SAME[1], chained]);
    assert_eq!(order(&mut world, "ollama/qwen3:8b"), ["ollama qwen3:8b"], "a pin holds for chains");
    world.widened = true;
    assert_eq!(order(&mut world, "ollama/qwen3:8b"), [SAME[0], SAME[1], chained]);
    // A link may be known here under another name.
    world.chains.insert("qwen3:8b".into(), vec!["llama3.1:8b".into(), "qwen3-14b".into()]);
    assert_eq!(order(&mut world, "qwen3:8b")[2], chained);
}

#[test]
fn a_name_that_only_a_chain_is_for_is_no_typo() {
    let mut world = names();
    world.chains.insert("big".into(), vec!["qwen3-14b".into(), "qwen3:8b".into()]);
    let why =
        "nobody: no server offers `big`, and its chain may not or cannot stand in now (fallback `local`)";
    assert_eq!(world.ask("big"), why);
    world.fallback = Fallback::Local;
    let all =
        ["alternative lmstudio qwen3-14b", "alternative ollama qwen3:8b", "alternative vllm Qwen/Qwen3-8B"];
    assert_eq!(order(&mut world, "big"), all);
}

#[test]
fn a_name_that_was_here_has_stand_ins_and_one_that_never_was_has_none() {
    let mut world = names();
    world.snapshot.formerly = Arc::new(BTreeSet::from(["qwen3:8b-q8_0".into(), "gone:latest".into()]));
    world.head.model = "qwen3:8b-q8_0".into();
    assert!(matches!(world.choose().0, Decision::Server(it) if it.substituted == Substitution::Equivalent));
    assert_eq!(world.ask("gone"), "nobody: `gone` was here, but no server offers it any more");
    world.fallback = Fallback::Local;
    assert_eq!(order(&mut world, "gone").len(), 3);
    assert_eq!(
        world.ask("qwen3:8b-fp16"),
        "unknown Qwen/Qwen3-8B qwen3:8b qwen3-14b",
        "the same comes first"
    );
}

#[test]
fn a_pin_is_left_only_when_the_request_says_so() {
    let mut world = names();
    world.fallback = Fallback::Local;
    assert_eq!(order(&mut world, "qwen3:8b@ollama"), ["ollama qwen3:8b"]);
    (world.widened, world.fallback) = (true, Fallback::Same);
    assert_eq!(order(&mut world, "qwen3:8b@ollama"), SAME);
    world.fallback = Fallback::Local;
    assert_eq!(order(&mut world, "qwen3:8b@ollama"), LOCAL);
    world.fallback = Fallback::None;
    assert_eq!(order(&mut world, "qwen3:8b@ollama"), LOCAL[..1]);
    // The pinned one is still asked first, however it stands.
    let mut world = self::world(&[("vllm-1", "suspect"), ("vllm-2", "loaded prio-1")]);
    (world.widened, world.fallback) = (true, Fallback::Same);
    assert_eq!(order(&mut world, "m@vllm-1"), ["vllm-1 m", "vllm-2 m"]);
}

#[test]
fn vectors_come_from_no_other_model() {
    let mut world = with(vec![
        server("vllm", &["nomic-ai/nomic-embed-text-v1.5"]),
        server("lmstudio", &["text-embedding-nomic-embed-text-v1.5"]),
        server("ollama", &["nomic-embed-text:latest", "bge-m3:latest"]),
    ]);
    world.head.operation = Operation::Embed;
    world.chains.insert("nomic-ai/nomic-embed-text-v1.5".into(), vec!["bge-m3".into()]);
    (world.fallback, world.widened) = (Fallback::Cloud, true);
    let same =
        ["vllm nomic-ai/nomic-embed-text-v1.5", "equivalent lmstudio text-embedding-nomic-embed-text-v1.5"];
    assert_eq!(order(&mut world, "nomic-ai/nomic-embed-text-v1.5"), same);
}

#[test]
fn another_model_must_be_able_and_health_memory_and_likeness_choose_it() {
    let now = Instant::now();
    let local = |others: Vec<Server>| {
        let mut world = with(others.into_iter().chain([server("x", &["qwen3:8b"])]).collect());
        (world.fallback, world.tried) = (Fallback::Local, vec!["x".into()]);
        world
    };
    let one = |id: &str, model: &str, words: &str| change(server(id, &[model]), words, now);
    for (a, b, expected) in [
        (one("a", "qwen3:4b", "chat"), one("b", "qwen3:14b", "chat"), "b qwen3:14b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen2.5:32b", "chat"), "b qwen2.5:32b"),
        (one("a", "llama3.1:8b", "chat loaded"), one("b", "qwen2.5:7b", "chat cold"), "a llama3.1:8b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen2.5:7b", "chat suspect"), "a llama3.1:8b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen2.5:7b", ""), "a llama3.1:8b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen2.5:7b", "embed"), "a llama3.1:8b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen3-reranker-8b", ""), "a llama3.1:8b"),
        (one("a", "llama3.1:8b", "chat"), one("b", "qwen2.5:7b", "chat cloudmodel"), "a llama3.1:8b"),
    ] {
        assert_eq!(local(vec![a, b]).ask("qwen3:8b"), expected);
    }
    let mut world = local(vec![one("a", "llava:7b", ""), one("b", "gemma3:27b", "chat")]);
    world.head.needs.vision = true;
    assert!(world.ask("qwen3:8b").starts_with("nobody"), "nobody says that it sees");
    world.head.needs = Needs { tools: true, ..Needs::default() };
    assert_eq!(world.ask("qwen3:8b"), "a llava:7b", "it may well");
}

#[test]
fn a_model_that_lacks_what_is_needed_is_stood_in_for() {
    let now = Instant::now();
    let mut world =
        with(vec![change(server("a", &["m"]), "chat", now), change(server("b", &["n"]), "chat tools", now)]);
    world.head.needs.tools = true;
    assert_eq!(world.ask("m"), "lacking: no server can take `m` now: a has it, but without tools");
    world.fallback = Fallback::Local;
    assert_eq!(order(&mut world, "m"), ["alternative b n"]);
}

#[test]
fn auto_stays_with_its_first_choice_where_no_other_model_may_stand_in() {
    let models = [("ollama", "qwen3:8b"), ("vllm", "Qwen/Qwen3-8B"), ("lmstudio", "ABC-1B")];
    let mut world = with(models.map(|(id, model)| server(id, &[model])).into());
    world.first_model = Some("qwen3:8b".into());
    for (fallback, expected) in [(Fallback::Same, "vllm Qwen/Qwen3-8B"), (Fallback::Local, "lmstudio")] {
        (world.fallback, world.tried) = (fallback, vec!["ollama".into()]);
        assert!(world.ask("auto").starts_with(expected), "{fallback}");
        assert!(matches!(world.choose().0, Decision::Server(it) if it.substituted == Substitution::No));
    }
}

#[test]
fn servers_that_mean_different_models_by_one_name_have_no_equivalent() {
    let sized = |id: &str, name: &str, size: &str| {
        let mut server = server(id, &[name]);
        each(&mut server, |it| it.parameters = Some(size.into()));
        server
    };
    let twin = || sized("c", "Qwen3-8B", "8.2B");
    let mut world = with(vec![sized("a", "main", "8.2B"), sized("b", "main", "14.8B"), twin()]);
    assert_eq!(order(&mut world, "main").len(), 2);
    let mut world = with(vec![sized("a", "qwen3:8b", "8.2B"), sized("b", "qwen3:8b", "14.8B"), twin()]);
    assert_eq!(order(&mut world, "qwen3:8b").len(), 2);
}
