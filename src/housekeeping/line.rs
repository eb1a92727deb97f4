//! The line that the log has for each request: what was asked of whom and how
//! it went, and no word of prompt or answer.

use std::time::Duration;

use crate::generate::Outcome;

/// A caller may write anything where a model's name belongs.
const NAME: usize = 100;

/// Writes it.
pub(super) fn write(outcome: &Outcome) {
    let last = outcome.attempts.last();
    let asked: String = outcome.asked.chars().filter(|it| !it.is_control()).take(NAME).collect();
    let model = last.map(|it| it.model.as_str()).filter(|it| *it != asked);
    tracing::info!(
        request = outcome.request_id,
        caller = outcome.caller.program.as_deref(),
        dialect = &*outcome.dialect,
        asked,
        model,
        server = last.map(|it| it.server.as_str()),
        status = outcome.status,
        attempts = outcome.attempts.len() as u64,
        first_token_ms = outcome.first_token.map(ms),
        total_ms = ms(outcome.total),
        input_tokens = outcome.usage.input_tokens,
        output_tokens = outcome.usage.output_tokens,
        failure = outcome.failure.as_deref(),
        "{}",
        outcome.ending.as_str()
    );
}

fn ms(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}
