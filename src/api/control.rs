//! The control API: what is known, as the contract shapes it, and the few things a person may say about servers.

use std::{sync::Arc, time::Duration};

use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Door, Knock, body, json};
use crate::{
    fault::Failure,
    generate::Usd,
    housekeeping::wall_ms,
    registry::{Admission, Server, Standing},
    relay::Body,
    server::{Endpoint, Problem, Zone},
    stats::{Spread, hour},
    wire::{
        AddServer, Added, CloudView, Health, LiveFigures, ModelCounts, ModelList, Percentiles, RequestCounts,
        ServerCounts, ServerList, ServerView, Status, StoreView, models as model_views,
    },
};

/// How long `POST servers` waits for the new address to be recognised.
const RECOGNISE: Duration = Duration::from_secs(6);
/// The most bytes of a control request's body.
const CONTROL_BODY: u64 = 64 << 10;

pub(super) async fn status(knock: Knock) -> Response<Body> {
    json(StatusCode::OK, &status_of(&knock.door))
}

fn status_of(door: &Door) -> Status {
    let house = &door.it.house;
    let snapshot = house.snapshot();
    let servers = ServerCounts::of(&snapshot);
    let ready = is_ready(door);
    let store = house.store().status();
    let mut reasons = door.it.notes.clone();
    reasons.extend(store.reasons);
    for server in &snapshot.servers {
        if let Some(reason) = reason(server) {
            reasons.push(reason);
        }
    }
    if servers.total() == 0 {
        reasons.insert(0, "no model server found".to_owned());
    }
    let health = match (ready, reasons.is_empty()) {
        (true, true) => Health::Ok,
        (true, false) => Health::Degraded,
        (false, _) => Health::Down,
    };
    let totals = house.with_stats(|it| it.totals());
    let queued = house.traffic().queued();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: door.started.elapsed().as_secs(),
        socket: door.it.socket.display().to_string(),
        listen: door.it.listen.map(|it| it.to_string()),
        ready,
        health,
        reasons,
        servers,
        models: ModelCounts::of(&snapshot),
        requests: RequestCounts {
            in_flight: door.it.relay.running().saturating_sub(queued) as u64,
            queued: queued as u64,
            total: totals.endings.all(),
            delivered: totals.endings.delivered,
            resumed: totals.endings.resumed,
            cut_short: totals.endings.cut_short,
            refused: totals.endings.refused,
            exhausted: totals.endings.exhausted,
            out_of_time: totals.endings.out_of_time,
            caller_gone: totals.endings.caller_gone,
            attempts_failed_over: totals.attempts_failed_over,
        },
        store: StoreView {
            bytes: store.path.is_some().then_some(store.bytes),
            path: store.path.map(|it| it.display().to_string()),
            ok: store.ok,
            dropped: store.dropped,
        },
        tracking: house.tracking(),
        cloud: house.spent().map(|it| CloudView {
            spent_today_usd: it.today.dollars(),
            daily_usd: it.daily.map(Usd::dollars),
        }),
        hardware: None,
    }
}

/// What is wrong with a server that may be used, in words.
fn reason(server: &Server) -> Option<String> {
    if server.admission != Admission::Open {
        return None;
    }
    let id = &server.id;
    match (server.standing, server.problem) {
        (Standing::Down, _) => Some(match &server.last_fault {
            Some(last) => format!("{id} is down: it {}", last.fault),
            None => format!("{id} is down"),
        }),
        (_, Some(problem)) => Some(match problem {
            Problem::NeedsKey => format!("{id} wants a key; see `key_env` and `key_file` in [[servers]]"),
            Problem::Loading => format!("{id} is loading its model"),
            Problem::WrongHost => format!("{id} refuses the host name that it is called by"),
            Problem::Unhealthy => format!("{id} answers, but says that it cannot serve"),
        }),
        (Standing::Up | Standing::Suspect | Standing::Trial, None) => None,
    }
}

/// Whether some server can be asked now; one in the cloud only where that is enabled.
pub(super) fn is_ready(door: &Door) -> bool {
    let far = door.it.house.cloud_is_open();
    door.it.house.snapshot().servers.iter().any(|it| is_usable(it, far))
}

fn is_usable(server: &Server, far: bool) -> bool {
    server.admission == Admission::Open
        && server.standing != Standing::Down
        && server.problem.is_none()
        && (far || server.zone != Zone::Cloud)
        && server.models.iter().any(|it| far || it.zone != Some(Zone::Cloud))
}

pub(super) async fn servers(knock: Knock) -> Response<Body> {
    json(StatusCode::OK, &ServerList { servers: server_views(&knock.door) })
}

pub(super) fn server_views(door: &Door) -> Vec<ServerView> {
    door.it.house.snapshot().servers.iter().map(|it| server_view(door, it)).collect()
}

pub(super) fn server_view(door: &Door, server: &Server) -> ServerView {
    let figures = door.it.house.with_stats(|it| it.live(&server.id, hour(wall_ms())));
    let traffic = door.it.house.traffic();
    let percentiles = |it: Spread| Percentiles { p50: it.p50, p95: it.p95 };
    let live = LiveFigures {
        in_flight: traffic.look().of(&server.id),
        limit: traffic.limit(&server.id, server.limit),
        queued: traffic.queued_for(&server.id).try_into().unwrap_or(u32::MAX),
        latency_ms: percentiles(figures.total_ms),
        first_token_ms: percentiles(figures.first_token_ms),
        tokens_per_second: figures.tokens_per_second.p50,
        success_rate: figures.success_rate,
    };
    ServerView::of(server, &live)
}

pub(super) async fn server(knock: Knock) -> Response<Body> {
    match knock.door.it.house.snapshot().server(&knock.rest) {
        Some(server) => json(StatusCode::OK, &server_view(&knock.door, server)),
        None => no_server(&knock),
    }
}

fn no_server(knock: &Knock) -> Response<Body> {
    let snapshot = knock.door.it.house.snapshot();
    let known = snapshot.servers.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none".to_owned() } else { known };
    knock.refuse(&Failure::NotFound(format!("no server `{}`; known: {known}", knock.rest)))
}

pub(super) async fn add(knock: Knock) -> Response<Body> {
    let Knock { door, body, request_id, shape, .. } = knock;
    let endpoint = async {
        let body = body::read(body, CONTROL_BODY).await?;
        let add: AddServer = serde_json::from_slice(&body)
            .map_err(|error| Failure::BadRequest(format!("the body is not {{\"url\": \"...\"}}: {error}")))?;
        Endpoint::parse(&add.url).map_err(|error| Failure::BadRequest(format!("`{}`: {error}", add.url)))
    };
    let endpoint = match endpoint.await {
        Ok(endpoint) => endpoint,
        Err(failure) => return crate::relay::refusal(&failure, shape, &request_id),
    };
    if door.it.house.bars(&endpoint) {
        let why = format!("{endpoint} is in the cloud, which is not enabled ([cloud] enabled)");
        return crate::relay::refusal(&Failure::Forbidden(why), shape, &request_id);
    }
    door.it.house.add(endpoint.clone());
    let server = door.it.house.recognised(&endpoint, RECOGNISE).await;
    door.it.house.settled().await;
    let status = if server.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let server = server.map(|it| server_view(&door, &it));
    json(status, &Added { url: endpoint.to_string(), server })
}

pub(super) async fn forget(knock: Knock) -> Response<Body> {
    match knock.door.it.house.change(|registry, now| registry.forget(&knock.rest, now)) {
        Some(_) => {
            knock.door.it.house.settled().await;
            json(StatusCode::OK, &json!({"forgotten": knock.rest}))
        }
        None => no_server(&knock),
    }
}

pub(super) async fn drain(knock: Knock) -> Response<Body> {
    let done = knock.door.it.house.change(|registry, now| registry.drain(&knock.rest, now));
    changed(&knock, done.is_some()).await
}

pub(super) async fn resume(knock: Knock) -> Response<Body> {
    let done = knock.door.it.house.change(|registry, now| registry.resume(&knock.rest, now));
    changed(&knock, done.is_some()).await
}

async fn changed(knock: &Knock, done: bool) -> Response<Body> {
    if done {
        knock.door.it.house.settled().await;
    }
    match knock.door.it.house.snapshot().server(&knock.rest).filter(|_| done) {
        Some(server) => json(StatusCode::OK, &server_view(&knock.door, server)),
        None => no_server(knock),
    }
}

pub(super) async fn probe(knock: Knock) -> Response<Body> {
    let asked = knock.door.it.house.probe_all();
    json(StatusCode::ACCEPTED, &json!({"probing": asked}))
}

pub(super) async fn models(knock: Knock) -> Response<Body> {
    let door: &Arc<Door> = &knock.door;
    json(StatusCode::OK, &ModelList { models: model_views(&door.it.house.snapshot(), &door.it.aliases) })
}

pub(super) async fn model(knock: Knock) -> Response<Body> {
    let models = model_views(&knock.door.it.house.snapshot(), &knock.door.it.aliases);
    let name = knock.rest.as_str();
    let found = models
        .iter()
        .find(|it| it.name == name)
        .or_else(|| models.iter().find(|it| it.aliases.iter().any(|a| a == name)));
    match found {
        Some(model) => json(StatusCode::OK, model),
        None => {
            let nearest = crate::route::nearest(name, models.iter().map(|it| it.name.as_str()));
            knock.refuse(&Failure::UnknownModel { model: name.to_owned(), nearest })
        }
    }
}

pub(super) async fn config(knock: Knock) -> Response<Body> {
    json(StatusCode::OK, &knock.door.it.config)
}
