//! How requests are divided among servers whose shares somebody has set.
//!
//! The weights of records in DNS are shares, so among servers that have any it is drawn by lot
//! who comes first, each as often as its weight says; who has least to do does not count, for
//! then the weights would not. But one that has piled up much more than its share of what is
//! under way is slower than its weight says, and stands behind the others until it has caught up.

use super::{Able, Ask, rank::mix};

/// A weight of nothing, beside others: seldom, but not never.
const NEXT_TO_NOTHING: f64 = 0.01;

/// So many times its share of what is under way, and so many more, are too much. Short requests
/// are never divided exactly.
const TOO_MUCH: (f64, f64) = (2.0, 4.0);

/// Puts who is able in an order that gives each its share.
pub(super) fn share(able: &mut Able<'_>, ask: &Ask<'_>) {
    let told: Vec<f64> = able.iter().filter_map(|it| it.server.weight).map(f64::from).collect();
    let sum: f64 = told.iter().sum();
    if sum == 0.0 {
        return;
    }
    // Who has none, among those that have, is as good as any.
    let usual = sum / told.len() as f64;
    let weight = |weight: Option<u16>| weight.map_or(usual, |it| f64::from(it).max(NEXT_TO_NOTHING));
    let all: f64 = able.iter().map(|it| weight(it.server.weight)).sum();
    let under_way: f64 = able.iter().map(|it| f64::from((ask.in_flight)(&it.server.id))).sum();
    for judged in able.iter_mut() {
        let weight = weight(judged.server.weight);
        let fair = under_way * weight / all;
        let is_behind = f64::from((ask.in_flight)(&judged.server.id)) > TOO_MUCH.0 * fair + TOO_MUCH.1;
        let lot = draw(mix(ask.salt, judged.server.id.as_str())) / (weight / usual);
        judged.rank = judged.rank.by_share(is_behind, lot);
    }
}

/// A lot of which the smallest wins: of several, each divided by a weight, one wins as often as
/// its weight says.
fn draw(luck: u64) -> f64 {
    // 53 bits make every number that a float has between 0 and 1, and here never 0.
    let uniform = ((luck >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -uniform.ln()
}
