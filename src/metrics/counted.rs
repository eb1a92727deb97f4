//! Sums over outcomes since the start of the daemon.

use std::collections::BTreeMap;

use super::{
    Buckets, Family, Labels, Points, Unit, error,
    family::{Point, points},
    operation, provider,
};
use crate::{
    generate::{Attempt, Ending, Operation, Outcome, Usd},
    server::{KindId, ModelName, ServerId},
    stats::OTHERS,
};

/// So many pairs of server and model are told apart, of requests and of attempts; what comes
/// later is counted together, by kind. A machine has a few dozen; each takes a KiB or two here,
/// and some sixty lines in a page for Prometheus.
const SERIES: usize = 200;

// The bounds that the conventions advise.
const DURATION: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// Sums since the start.
#[derive(Debug)]
pub struct Counted {
    /// By who answered, or was asked last.
    requests: BTreeMap<Series, Requests>,
    attempts: BTreeMap<Series, Attempts>,
    endings: BTreeMap<(String, Ending), u64>,
    queued: Buckets,
    failed_over: u64,
}

/// Whose numbers they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    operation: Operation,
    /// Nobody where a request came to no server.
    by: Option<By>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct By {
    kind: KindId,
    server: ServerId,
    model: ModelName,
}

#[derive(Debug)]
struct Requests {
    /// By what they ended with; `None` for successes.
    durations: BTreeMap<Option<String>, Buckets>,
    first_token: Buckets,
    per_token: Buckets,
}

#[derive(Debug)]
struct Attempts {
    durations: BTreeMap<Option<String>, Buckets>,
    input: Buckets,
    output: Buckets,
    cost: Option<Usd>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            attempts: BTreeMap::new(),
            endings: BTreeMap::new(),
            queued: Buckets::new(DURATION),
            failed_over: 0,
        }
    }
}

impl Default for Requests {
    fn default() -> Self {
        let [first_token, per_token] = [FIRST_TOKEN, PER_TOKEN].map(Buckets::new);
        Self { durations: BTreeMap::new(), first_token, per_token }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        let [input, output] = [TOKENS, TOKENS].map(Buckets::new);
        Self { durations: BTreeMap::new(), input, output, cost: None }
    }
}

impl Counted {
    /// Counts an outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        *self.endings.entry((outcome.dialect.to_string(), outcome.ending)).or_default() += 1;
        if !outcome.queued.is_zero() {
            self.queued.add(outcome.queued.as_secs_f64());
        }
        let series = Series::new(outcome.operation, outcome.attempts.last());
        let requests = of(&mut self.requests, series);
        took(&mut requests.durations, error(outcome).map(str::to_owned), outcome.total.as_secs_f64());
        if outcome.ending.is_success() {
            if let Some(first) = outcome.first_token {
                requests.first_token.add(first.as_secs_f64());
            }
            if let Some(speed) = outcome.answered().and_then(crate::stats::speed).filter(|it| *it > 0.0) {
                requests.per_token.add(1.0 / speed);
            }
        }
        self.failed_over += outcome.attempts.len().saturating_sub(1) as u64;
        for attempt in &outcome.attempts {
            let attempts = of(&mut self.attempts, Series::new(outcome.operation, Some(attempt)));
            attempts.add(attempt, outcome);
        }
    }

    /// What was counted.
    pub fn families(&self) -> Vec<Family> {
        let seconds = |name, help, points| Family { name, help, unit: Unit::Seconds, points };
        let requests = |of: fn(&Requests) -> &Buckets| {
            let some = self.requests.iter().filter(move |(_, it)| of(it).count() > 0);
            Points::Histogram(points(some.map(|(series, it)| (series.labels(), of(it).clone()))))
        };
        let durations = |all: Vec<(&Series, &BTreeMap<Option<String>, Buckets>)>| {
            let each = all.into_iter().flat_map(|(series, by)| by.iter().map(move |it| (series, it)));
            Points::Histogram(points(each.map(|(series, (error, it))| {
                let mut labels = series.labels();
                labels.extend(error.clone().map(|it| ("error.type", it)));
                (labels, it.clone())
            })))
        };
        vec![
            seconds(
                "gen_ai.server.request.duration",
                "Time from the arrival of requests to their end",
                durations(self.requests.iter().map(|(series, it)| (series, &it.durations)).collect()),
            ),
            seconds(
                "gen_ai.server.time_to_first_token",
                "Time from the arrival of requests to their first content, of whole answers",
                requests(|it| &it.first_token),
            ),
            seconds(
                "gen_ai.server.time_per_output_token",
                "Time for each token after the first, of whole answers",
                requests(|it| &it.per_token),
            ),
            seconds(
                "gen_ai.client.operation.duration",
                "Time of attempts at model servers",
                durations(self.attempts.iter().map(|(series, it)| (series, &it.durations)).collect()),
            ),
            Family {
                name: "gen_ai.client.token.usage",
                help: "Tokens of attempts, as model servers counted them",
                unit: Unit::Tokens,
                points: Points::Histogram(self.usage()),
            },
            Family::sums(
                "lovable.requests",
                Unit::Things,
                "Requests that are over, by how they ended",
                self.endings.iter().map(|((dialect, ending), count)| {
                    let ending = ending.as_str().to_owned();
                    let labels = vec![("lovable.dialect", dialect.clone()), ("lovable.ending", ending)];
                    (labels, *count as f64)
                }),
            ),
            Family::sums(
                "lovable.failovers",
                Unit::Things,
                "Attempts that another one followed",
                [(Labels::new(), self.failed_over as f64)],
            ),
            seconds(
                "lovable.queue.duration",
                "Time of those requests that waited for a place at a server",
                Points::Histogram(points([(Labels::new(), self.queued.clone())])),
            ),
            Family::sums(
                "lovable.cost",
                Unit::Usd,
                "What attempts cost, at the most",
                self.attempts.iter().filter_map(|(series, it)| Some((series.labels(), it.cost?.dollars()))),
            ),
        ]
    }

    fn usage(&self) -> Vec<Point<Buckets>> {
        let each = self.attempts.iter().flat_map(|(series, it)| {
            [("input", &it.input), ("output", &it.output)].map(|(sort, counts)| (series, sort, counts))
        });
        points(each.filter(|(.., it)| it.count() > 0).map(|(series, sort, it)| {
            let mut labels = series.labels();
            labels.push(("gen_ai.token.type", sort.to_owned()));
            (labels, it.clone())
        }))
    }
}

impl Attempts {
    fn add(&mut self, attempt: &Attempt, outcome: &Outcome) {
        // Without a fault of its own it ended as the request did: well, or left by the caller.
        let error = match &attempt.fault {
            Some(fault) => Some(fault.cause.word()),
            None => error(outcome).map(str::to_owned),
        };
        took(&mut self.durations, error, attempt.total.as_secs_f64());
        for (counts, tokens) in
            [(&mut self.input, attempt.usage.input_tokens), (&mut self.output, attempt.usage.output_tokens)]
        {
            if let Some(tokens) = tokens {
                counts.add(tokens as f64);
            }
        }
        self.cost = self.cost.into_iter().chain(attempt.cost.map(|it| it.usd)).reduce(Usd::plus);
    }
}

impl Series {
    fn new(operation: Operation, attempt: Option<&Attempt>) -> Self {
        let by = attempt.map(|it| By {
            kind: it.kind.clone(),
            server: it.server.clone(),
            model: it.model.clone(),
        });
        Self { operation, by }
    }

    fn labels(&self) -> Labels {
        let mut labels = vec![("gen_ai.operation.name", operation(self.operation).to_owned())];
        if let Some(By { kind, server, model }) = &self.by {
            labels.push(("gen_ai.provider.name", provider(kind).to_owned()));
            labels.push(("gen_ai.request.model", model.to_string()));
            labels.push(("lovable.server", server.to_string()));
        }
        labels
    }
}

/// The sums of a series; where there are too many, those of all others of its kind.
fn of<T: Default>(all: &mut BTreeMap<Series, T>, mut series: Series) -> &mut T {
    if all.len() >= SERIES
        && !all.contains_key(&series)
        && let Some(by) = &mut series.by
    {
        (by.server, by.model) = (OTHERS.into(), OTHERS.into());
    }
    all.entry(series).or_default()
}

fn took(durations: &mut BTreeMap<Option<String>, Buckets>, error: Option<String>, seconds: f64) {
    durations.entry(error).or_insert_with(|| Buckets::new(DURATION)).add(seconds);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::ledger::tests::outcome;

    fn find<'a>(families: &'a [Family], name: &str) -> &'a Family {
        families.iter().find(|it| it.name == name).unwrap()
    }

    fn counts(family: &Family) -> u64 {
        match &family.points {
            Points::Histogram(all) => all.iter().map(|it| it.value.count()).sum(),
            Points::Sum(all) | Points::Gauge(all) => all.iter().map(|it| it.value as u64).sum(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_request_and_every_attempt_is_counted_once(outcomes in vec(outcome(), 0..20)) {
            let mut counted = Counted::default();
            outcomes.iter().for_each(|it| counted.add(it));
            let families = counted.families();
            let attempts: usize = outcomes.iter().map(|it| it.attempts.len()).sum();
            let given = |of: fn(&Attempt) -> Option<u64>| {
                outcomes.iter().flat_map(|it| &it.attempts).filter(|it| of(it).is_some()).count()
            };
            let tokens = given(|it| it.usage.input_tokens) + given(|it| it.usage.output_tokens);
            for (name, expected) in [
                ("gen_ai.server.request.duration", outcomes.len()),
                ("lovable.requests", outcomes.len()),
                ("gen_ai.client.operation.duration", attempts),
                ("gen_ai.client.token.usage", tokens),
            ] {
                prop_assert_eq!(counts(find(&families, name)), expected as u64, "{}", name);
            }
        }
    }

    #[test]
    fn there_is_no_end_of_models_and_there_is_one_of_series() {
        let mut counted = Counted::default();
        for number in 0..1000 {
            let mut outcome = crate::ledger::tests::plain();
            outcome.attempts[0].model = format!("model-{number}").as_str().into();
            outcome.asked = format!("whatever-{number}");
            counted.add(&outcome);
        }
        let families = counted.families();
        let family = find(&families, "gen_ai.server.request.duration");
        let Points::Histogram(all) = &family.points else { panic!("{family:?}") };
        assert_eq!(all.len(), SERIES + 1);
        assert_eq!(counts(family), 1000);
        let others = all.iter().find(|it| it.labels.contains(&("gen_ai.request.model", OTHERS.to_owned())));
        assert_eq!(others.unwrap().value.count(), 800);
        assert!(!format!("{families:?}").contains("whatever"), "what a caller has written is no label");
    }
}
