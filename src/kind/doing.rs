//! What a silent server is doing: what all kinds read alike in what it says on the side.

use serde_json::Value;

use super::{Answer, Answers, Pulse, Question, Refusal, classify, listing};
use crate::{
    fault::Cause,
    server::{Doing, Model},
};

/// Its answer to this question, if it is one of a server that can work; else what follows.
pub(super) fn well<'a>(kind: &str, answers: &'a Answers, path: &'static str) -> Result<&'a Answer, Pulse> {
    let Some(answer) = answers.get(path) else { return Err(Pulse::Ask(Question::get(path))) };
    let refusal = Refusal { status: answer.status, retry_after: None, body: &answer.body };
    match answer.status {
        ..500 => Ok(answer),
        _ if classify(kind, refusal) == Cause::Loading => Err(Pulse::Is(Doing::Loading)),
        _ => Err(Pulse::Is(Doing::Dead)),
    }
}

/// What is known where a server answers and says no more.
pub(super) fn there(kind: &str, answers: &Answers, path: &'static str) -> Pulse {
    well(kind, answers, path).err().unwrap_or(Pulse::Is(Doing::Unknown))
}

/// What it does, by whether it has the model in memory: a request for one that is not there
/// has it loaded.
pub(super) fn by_memory(models: &[Model], model: &str) -> Pulse {
    let found = models.iter().find(|it| it.answers_to(model));
    Pulse::Is(match found.and_then(|it| it.loaded) {
        Some(false) => Doing::Loading,
        Some(true) | None => Doing::Unknown,
    })
}

/// The same by its list, in which `read` finds whether a model is in memory.
pub(super) fn by_list(
    kind: &str,
    answers: &Answers,
    read: impl FnMut(&Value) -> Option<Model>,
    model: &str,
) -> Pulse {
    match well(kind, answers, listing::PATH) {
        Ok(list) => by_memory(&listing::models(list, read), model),
        Err(known) => known,
    }
}

/// What it does, by how many it says that it works on and how many wait.
pub(super) fn by_counts(running: Option<f64>, waiting: Option<f64>) -> Doing {
    match (running, waiting) {
        (Some(it), _) if it > 0.0 => Doing::Working,
        (Some(_), Some(it)) if it > 0.0 => Doing::Queued,
        (Some(_), Some(_)) => Doing::Idle,
        _ => Doing::Unknown,
    }
}

/// The same by two gauges, which may be switched off.
pub(super) fn by_gauges(metrics: &Answer, running: &str, waiting: &str) -> Doing {
    let text = String::from_utf8_lossy(&metrics.body);
    let gauge = |name: &str| gauge(&text, name).filter(|_| metrics.status == 200);
    by_counts(gauge(running), gauge(waiting))
}

/// The sum over all lines of a gauge in the text format of Prometheus; `None` where there is
/// no such line.
pub(super) fn gauge(text: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(['{', ' ']);
        rest.rsplit(' ').next().filter(|_| is_it)?.parse::<f64>().ok()
    };
    text.lines().filter_map(value).reduce(|sum, it| sum + it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_the_sum_of_its_own_lines() {
        let text = "# HELP a of it\na{m=\"x y\"} 1.0\na{m=\"z\"} 2\na_more 5\nab 9\nb 0.0\nc nan-sense\n";
        assert_eq!(gauge(text, "a"), Some(3.0));
        assert_eq!(gauge(text, "b"), Some(0.0));
        assert_eq!((gauge(text, "c"), gauge(text, "d")), (None, None));
    }
}
