//! Models that other daemons have, and requests that come from them.

use super::*;

#[track_caller]
fn check(servers: &[(&str, &str)], via: &[&str], expected: &str) {
    let mut world = world(servers);
    world.via = via.iter().map(|it| (*it).to_owned()).collect();
    for salt in 0..20 {
        world.salt = salt;
        assert_eq!(world.decide(), expected, "{servers:?} {via:?}");
    }
}

#[test]
fn the_direct_way_to_a_model_is_preferred_to_one_through_others() {
    check(&[("lovable", "lan is=b"), ("vllm", "lan")], &[], "vllm m");
    check(&[("lovable", "lan is=b"), ("lovable-2", "lan is=c via=d")], &[], "lovable m");
    check(&[("lovable", "lan is=b loaded"), ("vllm", "lan loaded")], &[], "vllm m");
}

#[test]
fn a_daemon_nearby_is_preferred_to_what_is_far_cold_or_failing() {
    check(&[("lovable", "lan is=b"), ("groq", "cloud")], &[], "lovable m");
    check(&[("lovable", "lan is=b loaded"), ("vllm", "lan cold")], &[], "lovable m");
    check(&[("lovable", "lan is=b"), ("vllm", "lan suspect")], &[], "lovable m");
}

#[test]
fn nobody_is_asked_who_is_on_the_way_that_the_request_has_come() {
    let nobody = |why: &str| format!("nobody: no server can take `m` now: {why}");
    let circle = "lovable is on the way that this request has come";
    check(&[("lovable", "lan is=b")], &["b"], &nobody(circle));
    check(&[("lovable", "lan is=c via=b")], &["a", "b"], &nobody(circle));
    check(&[("lovable", "lan is=b")], &["a"], "lovable m");
    check(&[("lovable", "lan is=b"), ("vllm", "lan down+60")], &["b"], "vllm m");
}

proptest! {
    #[test]
    fn no_way_is_gone_twice(
        ways in prop::collection::vec((prop::option::of(0u8..4), prop::collection::vec(0u8..4, 0..3)), 0..5),
        via in prop::collection::vec(0u8..4, 0..4),
    ) {
        let words = ways.iter().map(|(is, behind)| {
            let is = is.map(|it| format!("is={it}")).unwrap_or_default();
            behind.iter().fold(is, |words, it| format!("{words} via={it}"))
        });
        let words: Vec<(String, String)> =
            words.enumerate().map(|(at, words)| (format!("lovable-{at}"), words)).collect();
        let servers: Vec<(&str, &str)> = words.iter().map(|(id, words)| (&**id, &**words)).collect();
        let mut world = world(&servers);
        world.via = via.iter().map(ToString::to_string).collect();
        if let Decision::Server(choice) = world.choose().0 {
            let model = choice.server.models.iter().find(|it| it.name == "m").unwrap();
            let mut way = choice.server.instance.iter().chain(&model.via);
            prop_assert!(!way.any(|it| world.via.contains(it)));
        }
    }
}
