//! Shares that records in DNS give.

use super::*;

/// How many of so many requests each gets, where each is over before the next comes.
fn divide(servers: &[(&str, &str)], requests: u64) -> HashMap<String, f64> {
    let mut world = world(servers);
    let mut got: HashMap<String, f64> = HashMap::new();
    for number in 0..requests {
        world.salt = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (decision, _) = world.choose();
        let Decision::Server(choice) = decision else { panic!("{decision:?}") };
        *got.entry(choice.server.id.to_string()).or_default() += 1.0;
    }
    got
}

#[track_caller]
fn check(servers: &[(&str, &str)], expected: &[(&str, f64)]) {
    const REQUESTS: u64 = 20_000;
    let got = divide(servers, REQUESTS);
    for (id, share) in expected {
        let is = got.get(*id).copied().unwrap_or_default() / REQUESTS as f64;
        assert!((is - share).abs() < 0.015, "{id} got {is}, not {share}: {got:?}");
    }
}

#[test]
fn each_gets_as_much_as_its_weight_says() {
    check(
        &[("a", "weight1"), ("b", "weight2"), ("c", "weight5")],
        &[("a", 0.125), ("b", 0.25), ("c", 0.625)],
    );
    check(&[("a", "weight0"), ("b", "weight65535")], &[("a", 0.0), ("b", 1.0)]);
    check(&[("a", "weight0"), ("b", "weight0")], &[("a", 0.5), ("b", 0.5)]);
    // Who has none is as good as any.
    check(
        &[("a", "weight10"), ("b", "weight30"), ("c", "")],
        &[("a", 1.0 / 6.0), ("b", 0.5), ("c", 1.0 / 3.0)],
    );
}

#[test]
fn shares_count_among_those_of_one_priority_only() {
    check(
        &[("a", "weight1 prio-1"), ("b", "weight3 prio-1"), ("c", "weight99")],
        &[("a", 0.25), ("b", 0.75)],
    );
    check(&[("a", "weight1 suspect"), ("b", "weight3 suspect"), ("c", "weight1")], &[("c", 1.0)]);
}

#[test]
fn who_has_piled_up_much_more_than_its_share_stands_behind() {
    let mut world = world(&[("a", "weight9"), ("b", "weight1")]);
    world.in_flight.insert("a".into(), 9);
    assert!((0..100).any(|salt| {
        world.salt = salt;
        world.decide() == "a m"
    }));
    world.in_flight.insert("a".into(), 1);
    world.in_flight.insert("b".into(), 30);
    for salt in 0..1000 {
        world.salt = salt;
        assert_eq!(world.decide(), "a m");
    }
}
