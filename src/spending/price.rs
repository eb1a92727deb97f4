//! What tokens cost.

use std::collections::BTreeMap;

use crate::{
    generate::{Most, Usage, Usd},
    registry::Server,
};

/// Prices are for so many tokens.
const PER: u128 = 1_000_000;

/// What writing to a provider's cache costs at the most, beside reading as usual: Anthropic
/// takes twice the price of a token for what is to be kept an hour.
const WRITTEN: u128 = 2;

/// What a model costs, for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of a prompt.
    pub input: Usd,
    /// Of an answer, its thinking included.
    pub output: Usd,
    /// Of a prompt that the provider had in its cache; as any other where it is not known.
    pub cached: Option<Usd>,
}

impl Price {
    /// What a request can cost at the most.
    pub fn most(&self, tokens: Most) -> Usd {
        let factor = if tokens.writes_cache { WRITTEN } else { 1 };
        sum(&[(u128::from(tokens.input) * factor, self.input), (tokens.output.into(), self.output)])
    }

    /// What it did cost, by the counts of the provider. `None` where it gave none.
    pub fn cost(&self, usage: Usage) -> Option<Usd> {
        let (input, output) = (usage.input_tokens?, usage.output_tokens?);
        let written = usage.written_tokens.unwrap_or(0).min(input);
        let cached = usage.cached_tokens.unwrap_or(0).min(input - written);
        let plain = input - written - cached;
        Some(sum(&[
            (plain.into(), self.input),
            (u128::from(written) * WRITTEN, self.input),
            (cached.into(), self.cached.unwrap_or(self.input)),
            (output.into(), self.output),
        ]))
    }
}

/// Rounded up: a limit that is kept is kept in fractions as well.
fn sum(parts: &[(u128, Usd)]) -> Usd {
    let parts = parts.iter().map(|(tokens, price)| tokens.saturating_mul(price.nanos().into()));
    let nanos = parts.fold(0_u128, u128::saturating_add).div_ceil(PER);
    Usd::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What models cost, by the name that a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices(BTreeMap<String, Price>);

impl Prices {
    /// With one more.
    pub fn insert(&mut self, model: String, price: Price) {
        self.0.insert(model, price);
    }

    /// What a model of a server costs. The name that says most comes first: that of the model
    /// at this server, at servers of this kind, anywhere.
    pub fn of(&self, server: &Server, model: &str) -> Option<Price> {
        let kind = &server.kind;
        let by_name = server.name.iter().map(|name| format!("{model}@{name}"));
        let names = by_name.chain([format!("{model}@{}", server.id), format!("{kind}/{model}")]);
        names.chain([model.to_owned()]).find_map(|name| self.0.get(&name)).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(dollars: f64) -> Usd {
        Usd::from_dollars(dollars).unwrap()
    }

    fn price() -> Price {
        Price { input: usd(1.25), output: usd(10.0), cached: None }
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
    }

    #[test]
    fn a_million_tokens_cost_the_price() {
        assert_eq!(price().cost(usage(1_000_000, 0)), Some(usd(1.25)));
        assert_eq!(price().cost(usage(1000, 500)), Some(usd(0.00625)));
        assert_eq!(
            price().cost(Usage { output_tokens: None, ..usage(1, 1) }),
            None,
            "unknown is not nothing"
        );
        let tiny = Price { input: Usd::from_nanos(1), ..price() };
        assert_eq!(tiny.cost(usage(1, 0)), Some(Usd::from_nanos(1)), "rounded up");
    }

    #[test]
    fn what_a_cache_gives_is_cheaper_and_what_it_takes_is_dearer() {
        let cached = Price { cached: Some(usd(0.125)), ..price() };
        let read = Usage { cached_tokens: Some(1_000_000), ..usage(1_000_000, 0) };
        assert_eq!(cached.cost(read), Some(usd(0.125)));
        assert_eq!(price().cost(read), Some(usd(1.25)), "the usual price where none is known");
        let written = Usage { written_tokens: Some(1_000_000), ..usage(1_000_000, 0) };
        assert_eq!(cached.cost(written), Some(usd(2.5)));
    }

    proptest! {
        #[test]
        fn no_answer_within_its_bounds_costs_more_than_the_most(
            input in 0..2_000_000_u64, output in 0..200_000_u64,
            used in (0.0..=1.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64, 0.0..=1.0_f64),
            writes_cache in any::<bool>(), prices in (0..u64::from(u32::MAX), 0..u64::from(u32::MAX)),
        ) {
            let part = |whole: u64, share: f64| (whole as f64 * share) as u64;
            let price = Price {
                input: Usd::from_nanos(prices.0), output: Usd::from_nanos(prices.1), cached: None,
            };
            let most = price.most(Most { input, output, writes_cache });
            let (read, wrote) = (part(input, used.0), part(output, used.1));
            let usage = Usage {
                cached_tokens: Some(part(read, used.2)),
                written_tokens: writes_cache.then(|| part(read, used.3)),
                ..usage(read, wrote)
            };
            prop_assert!(price.cost(usage).unwrap() <= most);
        }
    }
}
