//! Requests that are over: statistics of them, comparisons, and each by itself.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Knock, json};
use crate::{
    config::parse_duration,
    fault::Failure,
    generate::Usd,
    housekeeping::{Span, wall_ms},
    ledger::Filter,
    relay::Body,
    stats::{self, By, Key, Query, Row, Spread, Sums},
    wire::{
        self, CompareView, Group, LoadView, MeasureView, Percentiles, Quality, RequestList, RequestView,
        StatsList, StatsRow, from_rfc3339, rfc3339,
    },
};

pub(super) async fn stats(knock: Knock) -> Response<Body> {
    let (query, span) = match query(&knock) {
        Ok(asked) => asked,
        Err(failure) => return knock.refuse(&failure),
    };
    let rows = knock.door.house.report_of(&query, span).await;
    json(StatusCode::OK, &StatsList { rows: rows.iter().map(|it| row(it, query.by)).collect() })
}

fn query(knock: &Knock) -> Result<(Query, Span), Failure> {
    let by = match knock.parameter("by") {
        None => None,
        Some(name) => Some(By::parse(&name).ok_or_else(|| {
            Failure::BadRequest(format!(
                "`by` takes server, model, kind, zone, dialect, caller, hour or day, not `{name}`"
            ))
        })?),
    };
    let query = Query {
        by,
        server: knock.parameter("server"),
        model: knock.parameter("model"),
        caller: knock.parameter("caller"),
        ..Query::default()
    };
    Ok((query, span(knock)?))
}

fn span(knock: &Knock) -> Result<Span, Failure> {
    let time = |name: &str| match knock.parameter(name) {
        None => Ok(None),
        Some(text) => moment(&text).map(Some).ok_or_else(|| {
            Failure::BadRequest(format!(
                "`{name}` takes a time like 2026-03-01T12:00:00Z or a span like 24h, not `{text}`"
            ))
        }),
    };
    Ok(Span { since_ms: time("since")?, until_ms: time("until")? })
}

/// A time as the API writes it, or so long ago.
fn moment(text: &str) -> Option<u64> {
    let ago = |it: Duration| wall_ms().saturating_sub(u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    from_rfc3339(text).or_else(|| parse_duration(text).map(ago))
}

/// Which requests are meant, as far as the caller may see them.
pub(super) fn filter(knock: &Knock) -> Result<Filter, Failure> {
    let Span { since_ms, until_ms } = span(knock)?;
    Ok(Filter {
        since_ms,
        until_ms,
        server: knock.parameter("server"),
        model: knock.parameter("model"),
        caller: knock.parameter("caller"),
        uid: knock.sees_only(),
    })
}

fn row(row: &Row, by: Option<By>) -> StatsRow {
    let spread = |it: Spread| wire::Spread::from(it);
    let key = match &row.key {
        Key::All => None,
        Key::Name(name) => name.clone(),
        Key::Zone(zone) => zone.map(|it| it.as_str().to_owned()),
        Key::Hour(hour) => Some(rfc3339(u64::from(*hour) * 3_600_000)),
    };
    let speed = row.tokens_per_second;
    StatsRow {
        group: by.and_then(|by| Group::new(by.as_str(), key)),
        requests: row.endings.all(),
        delivered: row.endings.delivered,
        resumed: row.endings.resumed,
        cut_short: row.endings.cut_short,
        refused: row.endings.refused,
        exhausted: row.endings.exhausted,
        out_of_time: row.endings.out_of_time,
        caller_gone: row.endings.caller_gone,
        success_rate: row.success_rate,
        failed_over: row.failed_over,
        first_token_ms: spread(row.first_token_ms),
        total_ms: spread(row.total_ms),
        tokens_per_second: Percentiles { p50: speed.p50, p95: speed.p95 },
        input_tokens: row.input_tokens,
        output_tokens: row.output_tokens,
        usage_absent: row.usage_absent,
        quality: Quality::default(),
        cost_usd: row.cost.map(Usd::dollars),
        gap_ms: spread(row.gap_ms),
        queued: row.queued,
        queued_ms: spread(row.queued_ms),
        hardware: row.load.map(LoadView::from),
    }
}

pub(super) async fn compare(knock: Knock) -> Response<Body> {
    let side = |name: &str| {
        let text = knock.parameter(name).filter(|it| !it.is_empty());
        let missing = || Failure::BadRequest(format!("`{name}` names a server or a model"));
        text.map(|it| Side::of(&knock, it)).ok_or_else(missing)
    };
    let asked = side("a").and_then(|a| Ok((a, side("b")?, span(&knock)?)));
    let (a, b, span) = match asked {
        Ok(asked) => asked,
        Err(failure) => return knock.refuse(&failure),
    };
    if a.by != b.by {
        return knock.refuse(&Failure::BadRequest(format!(
            "`{}` is a {} and `{}` a {}; a comparison is of two servers or of two models",
            a.name,
            a.by.as_str(),
            b.name,
            b.by.as_str()
        )));
    }
    let compared = stats::compare(&a.sums(&knock, span).await, &b.sums(&knock, span).await);
    json(
        StatusCode::OK,
        &CompareView {
            by: a.by.as_str().to_owned(),
            a: a.name,
            b: b.name,
            requests_a: compared.a,
            requests_b: compared.b,
            confidence: 0.95,
            measures: compared.measures.iter().map(MeasureView::from).collect(),
        },
    )
}

/// One side of a comparison.
struct Side {
    by: By,
    name: String,
}

impl Side {
    /// `server:NAME`, `model:NAME`, or a name: of a server, if there is or was one, else of a model.
    fn of(knock: &Knock, text: String) -> Self {
        let named = |by: By| text.strip_prefix(by.as_str())?.strip_prefix(':').map(str::to_owned);
        for by in [By::Server, By::Model] {
            if let Some(name) = named(by) {
                return Self { by, name };
            }
        }
        let house = &knock.door.house;
        let is_server =
            house.snapshot().server(&text).is_some() || house.with_stats(|it| it.has_server(&text));
        Self { by: if is_server { By::Server } else { By::Model }, name: text }
    }

    async fn sums(&self, knock: &Knock, span: Span) -> Sums {
        let name = Some(self.name.clone());
        let query = match self.by {
            By::Server => Query { by: Some(By::Server), server: name, ..Query::default() },
            _ => Query { by: Some(By::Model), model: name, ..Query::default() },
        };
        knock.door.house.gather(&query, span).await.into_values().next().unwrap_or_default()
    }
}

pub(super) async fn clear(knock: Knock) -> Response<Body> {
    match knock.door.house.clear_stats().await {
        true => json(StatusCode::OK, &json!({"cleared": true})),
        false => {
            tracing::error!("statistics could not be deleted");
            knock.refuse(&Failure::Internal)
        }
    }
}

pub(super) async fn requests(knock: Knock) -> Response<Body> {
    let limit = match knock.parameter("limit").map(|it| it.parse::<usize>()) {
        None => 100,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return knock.refuse(&Failure::BadRequest("`limit` takes a whole number".to_owned())),
    };
    let filter = Filter { uid: knock.sees_only(), ..Filter::default() };
    let requests = knock.door.house.requests(limit, &filter).await;
    let requests = requests.iter().map(|it| RequestView::from(&**it)).collect();
    json(StatusCode::OK, &RequestList { requests })
}

pub(super) async fn request(knock: Knock) -> Response<Body> {
    let filter = Filter { uid: knock.sees_only(), ..Filter::default() };
    match knock.door.house.request(&knock.rest, &filter).await {
        Some(outcome) => json(StatusCode::OK, &RequestView::from(&*outcome)),
        None => {
            knock.refuse(&Failure::NotFound(format!("no request `{}` is known that is over", knock.rest)))
        }
    }
}
