//! Prompts and the contexts that they must fit.

use super::*;

/// A prompt of about `likely` tokens, surely not less than `least`, and an answer of so many.
fn long(servers: &[(&str, &str)], least: u64, likely: u64, answer: u64) -> World {
    let mut world = world(servers);
    world.length = Length { least, likely, context: None };
    world.head.max_tokens = (answer > 0).then_some(answer);
    world
}

#[track_caller]
fn check(servers: &[(&str, &str)], prompt: (u64, u64, u64), expected: &str) {
    assert_eq!(long(servers, prompt.0, prompt.1, prompt.2).decide(), expected, "{servers:?}");
}

#[test]
fn a_prompt_goes_where_it_fits_whatever_else_speaks_for_others() {
    let servers = [("a", "ctx1000 loaded prio-1"), ("b", "ctx8000 cold lan")];
    check(&servers, (100, 200, 0), "a m");
    check(&servers, (900, 990, 0), "a m");
    check(&servers, (1001, 1300, 0), "b m loading");
    check(&servers, (900, 1100, 0), "b m loading");
    check(&servers, (100, 200, 900), "b m loading");
}

#[test]
fn where_the_estimate_leaves_a_doubt_it_is_sent_and_where_it_is_sure_refused_with_both_numbers() {
    check(&[("a", "ctx1000")], (999, 1500, 4000), "a m");
    check(&[("a", "ctx1000")], (1001, 1500, 0), "too long: 1500 > 1000");
    check(&[("a", "ctx1000"), ("b", "ctx1200")], (1300, 1500, 0), "too long: 1500 > 1200");
    let (_, candidates) = long(&[("a", "ctx1000")], 1001, 1500, 0).choose();
    let why = candidates[0].excluded.as_deref();
    assert_eq!(why, Some("has a context of 1000 tokens, too small for a prompt of about 1500"));
}

#[test]
fn what_is_loaded_counts_and_else_what_the_model_was_made_for() {
    check(&[("a", "ctx1000 made9000")], (2000, 2500, 0), "too long: 2500 > 1000");
    check(&[("a", "made9000")], (2000, 2500, 0), "a m");
    check(&[("a", "made9000")], (9001, 9900, 0), "too long: 9900 > 9000");
    check(&[("a", "")], (9001, 9900, 0), "a m");
}

#[test]
fn a_context_that_the_caller_asks_for_counts_where_it_can_be_had() {
    let ask = |server: &str, words: &str| {
        let mut world = long(&[(server, words)], 2000, 2500, 0);
        world.length.context = Some(4000);
        world.decide()
    };
    assert_eq!(ask("ollama", "ctx1000"), "ollama m");
    assert_eq!(ask("ollama", "ctx1000 made1500"), "too long: 2500 > 1500");
    assert_eq!(ask("llamacpp", "ctx1000"), "too long: 2500 > 1000");
}

#[test]
fn vllm_takes_no_answer_that_may_be_longer_than_its_context_and_others_end_it_there() {
    check(&[("vllm", "ctx1000")], (10, 20, 4000), "too long: 20+4000 > 1000");
    check(&[("vllm", "ctx1000")], (10, 20, 990), "vllm m");
    check(&[("llamacpp", "ctx1000")], (10, 20, 4000), "llamacpp m");
}

#[test]
fn a_server_that_a_person_keeps_out_hides_nothing_and_one_that_rests_is_asked_first() {
    let long = (1001, 1500, 0);
    check(&[("a", "ctx1000"), ("b", "untrusted")], long, "too long: 1500 > 1000");
    check(&[("a", "ctx1000 untrusted")], long, "nobody: no server can take `m` now: a is not trusted");
    check(&[("a", "ctx1000"), ("b", "down+5")], long, "b m");
    check(&[("a", "ctx1000"), ("b", "busy+5")], long, "later 5");
    check(&[("a", "ctx1000 down+5")], long, "too long: 1500 > 1000");
}

#[test]
fn a_request_that_is_far_from_any_context_is_not_taken_apart() {
    let mut world = long(&[("a", "ctx1000"), ("b", "ctx8000")], 0, 0, 200);
    world.head.max_tokens = Some(200);
    let ask = |bytes: u64| {
        let length = || panic!("asked for {bytes} bytes");
        choose(&world.snapshot, &Ask { bytes, length: &length, ..world.ask_with(&|_| 0) }).0
    };
    assert!(matches!(ask(1600), Decision::Server(_)));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ask(1700))).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_prompt_that_surely_does_not_fit_is_never_sent(world in any_world()) {
        if let Decision::Server(choice) = world.choose().0 {
            let model = choice.server.models.iter().find(|it| it.name == choice.model).unwrap();
            if let Some(context) = model.loaded_context_length.or(model.context_length) {
                prop_assert!(world.length.least <= context, "{} > {context}", world.length.least);
            }
        }
    }
}
