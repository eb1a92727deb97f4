//! Asks, and notes how long it takes.
//!
//! The first token is timed here, as any program of this machine would see it. How fast the rest
//! comes is what the daemon writes down of each request: by the server's own count, else measured
//! from the first token.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{
    super::{Trouble, out::Out, say},
    Args,
    plan::{LeftOut, Target, prompt},
    report::Row,
};
use crate::{
    client::{Client, ClientError},
    wire::{GenerateBody, RequestView},
};

/// A request is in the list a moment after its answer has ended.
const WRITTEN_DOWN: [Duration; 4] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
];
/// Without a terminal progress is a line now and then.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How one request went.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) first_token_ms: Option<f64>,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
}

/// What requests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The model is loaded by it, which is what is measured.
    Load,
    /// A model that is loaded may still have something to prepare, which is not measured.
    WarmUp,
    Measure,
}

/// Something that is measured several times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) target: Target,
    pub(super) aim: Aim,
    pub(super) prompt: u32,
    pub(super) at_once: u32,
    pub(super) measured: Vec<Measured>,
    /// Why others failed.
    pub(super) failed: Vec<String>,
    /// While requests ran.
    pub(super) took: Duration,
}

/// The work, and what it has come to so far.
pub(super) struct Measuring<'a> {
    client: &'a Client,
    targets: Vec<Target>,
    prompts: Vec<u32>,
    at_once: Vec<u32>,
    rounds: u32,
    tokens: u32,
    done: Vec<Cell>,
    /// What could not be asked.
    pub(super) skipped: Vec<LeftOut>,
    said: Option<Instant>,
}

impl<'a> Measuring<'a> {
    pub(super) fn new(args: &Args, targets: Vec<Target>, client: &'a Client) -> Self {
        let sorted = |those: &[u32]| {
            let mut those = those.to_vec();
            those.sort_unstable();
            those.dedup();
            those
        };
        Self {
            client,
            targets,
            prompts: sorted(&args.prompts),
            at_once: sorted(&args.at_once),
            rounds: args.rounds,
            tokens: args.tokens,
            done: Vec::new(),
            skipped: Vec::new(),
            said: None,
        }
    }

    /// What there is by now, in the order in which it was measured.
    pub(super) fn rows(&self) -> Vec<Row> {
        let tells = |it: &&Cell| !it.failed.is_empty() || it.aim != Aim::WarmUp && !it.measured.is_empty();
        self.done.iter().filter(tells).map(Row::of).collect()
    }

    /// Measures everything. It may be dropped at any time.
    pub(super) async fn run(&mut self, talk: &mut Out) -> Result<(), Trouble> {
        for target in self.targets.clone() {
            let aim = if target.is_cold { Aim::Load } else { Aim::WarmUp };
            // Short, for it is not reading that matters here.
            self.measure(cell(&target, aim, self.prompts.first().copied().unwrap_or(64), 1), 1, talk).await?;
            // The others would fail too, each after a long wait.
            if self.done.last().is_none_or(|it| !it.failed.is_empty()) {
                continue;
            }
            for prompt in self.prompts.clone() {
                if !target.fits(prompt, self.tokens) {
                    self.skipped.push(target.too_long(prompt));
                    continue;
                }
                for at_once in self.at_once.clone() {
                    self.measure(cell(&target, Aim::Measure, prompt, at_once), self.rounds, talk).await?;
                }
            }
        }
        Ok(())
    }

    async fn measure(&mut self, cell: Cell, rounds: u32, talk: &mut Out) -> Result<(), Trouble> {
        let (client, target, tokens) = (self.client, cell.target.clone(), self.tokens);
        let (length, at_once) = (cell.prompt, cell.at_once);
        let place = self.done.len();
        self.done.push(cell);
        let ask = || one(client, &target, prompt(length, fastrand::u64(1 << 60..)), tokens);
        let all = rounds * at_once;
        let start = Instant::now();
        let mut running: FuturesUnordered<_> = (0..at_once).map(|_| ask()).collect();
        let mut left = all - at_once;
        self.say(place, all, talk)?;
        while let Some(ended) = running.next().await {
            // As many at once until the last.
            if left > 0 {
                left -= 1;
                running.push(ask());
            }
            let Some(cell) = self.done.get_mut(place) else { break };
            cell.took = start.elapsed();
            match ended {
                Ok(measured) => cell.measured.push(measured),
                Err(error @ (ClientError::Unreachable { .. } | ClientError::HungUp { .. })) => {
                    return Err(error.into());
                }
                Err(error) => cell.failed.push(error.to_string()),
            }
            self.say(place, all, talk)?;
        }
        Ok(())
    }

    /// Says how far it is.
    fn say(&mut self, place: usize, all: u32, talk: &mut Out) -> Result<(), Trouble> {
        let Some(it) = self.done.get(place) else { return Ok(()) };
        let (model, server) = (say::clean(it.target.model.as_str()), say::clean(it.target.server.as_str()));
        let done = it.measured.len() + it.failed.len();
        let what = match it.aim {
            Aim::Load => "loading".to_owned(),
            Aim::WarmUp => "warming up".to_owned(),
            Aim::Measure => format!("prompt {}, {} at once, {done} of {all}", it.prompt, it.at_once),
        };
        let line = format!("{model} on {server}: {what}");
        if talk.terminal {
            let line = say::cut(&line, talk.look.width.unwrap_or(80).saturating_sub(1));
            return talk.text(&format!("\r{line}\x1b[K"));
        }
        if self.said.is_none_or(|it| it.elapsed() >= BETWEEN_LINES) {
            self.said = Some(Instant::now());
            talk.line(line)?;
        }
        Ok(())
    }
}

fn cell(target: &Target, aim: Aim, prompt: u32, at_once: u32) -> Cell {
    let (measured, failed) = (Vec::new(), Vec::new());
    Cell { target: target.clone(), aim, prompt, at_once, measured, failed, took: Duration::ZERO }
}

/// One request, from its sending to its end.
async fn one(client: &Client, target: &Target, prompt: String, tokens: u32) -> Result<Measured, ClientError> {
    let body = GenerateBody {
        model: Some(target.pin()),
        prompt: Some(prompt),
        stream: true,
        max_tokens: Some(tokens.into()),
        temperature: Some(0.0),
        ..GenerateBody::default()
    };
    let start = Instant::now();
    let mut answer = client.generate(&body).await?;
    let mut first = None;
    while let Some(piece) = answer.stream.next().await {
        let piece = piece?;
        if first.is_none() && !(piece.text.is_empty() && piece.thought.is_empty()) {
            first = Some(start.elapsed());
        }
    }
    let first_token_ms = first.map(|it| it.as_secs_f64() * 1000.0);
    let told = match &answer.by.request_id {
        Some(id) => written_down(client, id).await,
        None => None,
    };
    Ok(match told {
        Some(it) => Measured {
            first_token_ms,
            tokens_per_second: it.tokens_per_second,
            input_tokens: it.usage.input_tokens,
            output_tokens: it.usage.output_tokens,
        },
        None => Measured { first_token_ms, ..Measured::default() },
    })
}

async fn written_down(client: &Client, id: &str) -> Option<RequestView> {
    for pause in WRITTEN_DOWN {
        tokio::time::sleep(pause).await;
        if let Ok(view) = client.request(id).await {
            return view.read().ok();
        }
    }
    None
}
