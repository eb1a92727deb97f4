//! The control API: what is known, as the contract shapes it, and the few things a person may say about servers.

use std::time::Duration;

use hyper::{Response, StatusCode, body::Incoming};
use serde_json::json;

use super::{Door, Knock, body, json};
use crate::{
    fault::{Cause, Failure, Fault},
    generate::Usd,
    housekeeping::{Look, wall_ms},
    postgres,
    registry::{Admission, Server, Standing},
    relay::Body,
    server::{Address, Endpoint, Pin, Problem, Zone},
    stats::{Row, Spread, hour},
    wire::{
        AddServer, Added, CloudView, HardwareView, Health, LiveFigures, LookupView, ModelCounts, ModelList,
        ModelView, OtlpView, Percentiles, PinWish, PostgresView, RequestCounts, ServerCounts, ServerList,
        ServerView, Status, StoreView, TrustServer, models as model_views, rfc3339,
    },
};

/// How long `POST servers` waits for the new address to be recognised.
const RECOGNISE: Duration = Duration::from_secs(6);
/// The most bytes of a control request's body.
const CONTROL_BODY: u64 = 64 << 10;

pub(super) async fn status(knock: Knock) -> Response<Body> {
    let hardware = knock.door.house.hardware().await;
    let hardware = hardware.map(|it| HardwareView::from(&*it));
    json(StatusCode::OK, &Status { hardware, ..status_of(&knock.door) })
}

pub(super) fn status_of(door: &Door) -> Status {
    let house = &door.house;
    let snapshot = house.snapshot();
    let servers = ServerCounts::of(&snapshot);
    let ready = is_ready(door);
    let store = house.store().status();
    let mut reasons = door.settings().notes.clone();
    reasons.extend(store.reasons);
    let sharing = door.sharing.status();
    reasons.extend(sharing.as_ref().and_then(behind));
    let lookups: Vec<LookupView> = house
        .lookups()
        .into_iter()
        .map(|(at, it)| LookupView { name: at.to_string(), servers: it.servers, trouble: it.trouble })
        .collect();
    reasons.extend(lookups.iter().filter_map(LookupView::reason));
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
        socket: door.socket.display().to_string(),
        listen: door.listen.map(|it| it.to_string()),
        ready,
        health,
        reasons,
        servers,
        models: ModelCounts::of(&snapshot),
        requests: RequestCounts {
            in_flight: door.relay.running().saturating_sub(queued) as u64,
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
        postgres: sharing.map(shared),
        otlp: house.told().map(|it| OtlpView { ok: it.ok, waiting: it.waiting, dropped: it.dropped }),
        lookups,
        cloud: house.spent().map(|it| CloudView {
            spent_today_usd: it.today.dollars(),
            daily_usd: it.daily.map(Usd::dollars),
        }),
        hardware: None,
    }
}

/// What is wrong with the shared database, in words.
fn behind(it: &postgres::Status) -> Option<String> {
    let name = &it.database;
    match &it.trouble {
        Some((trouble, _)) => {
            Some(format!("outcomes wait for PostgreSQL at {name} ({} of them): {trouble}", it.waiting))
        }
        None if it.deleted => Some(format!(
            "outcomes were deleted here before PostgreSQL at {name} had them; give [stats] max_size more room"
        )),
        None if it.refused > 0 => Some(format!("PostgreSQL at {name} refused outcomes: {}", it.refused)),
        None => None,
    }
}

fn shared(it: postgres::Status) -> PostgresView {
    let (trouble, since) = it.trouble.unzip();
    PostgresView {
        database: it.database,
        ok: trouble.is_none(),
        waiting: it.waiting,
        refused: it.refused,
        deleted_unsent: it.deleted,
        problem: trouble.map(|it| it.code().to_owned()),
        since: since.map(rfc3339),
    }
}

/// What is wrong with a server that may be used, in words.
fn reason(server: &Server) -> Option<String> {
    let id = &server.id;
    let again = format!("`lovablectl servers trust {id}` says that it is fine");
    match server.problem {
        Some(Problem::ChangedKind) => {
            return Some(format!("{id} is not what was trusted: it is {} now; {again}", server.kind));
        }
        Some(Problem::ChangedKey) => {
            return Some(format!("{id} does not have the TLS key that was trusted; {again}"));
        }
        Some(Problem::ChangedOwner) => {
            return Some(format!("{id} does not belong to the user that was trusted; {again}"));
        }
        _ if server.admission != Admission::Open => return None,
        _ => {}
    }
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
            // These are untrusted, see below.
            Problem::ChangedKind | Problem::ChangedKey | Problem::ChangedOwner => return None,
        }),
        (Standing::Up | Standing::Suspect | Standing::Trial, None) => None,
    }
}

/// Whether some server can be asked now; one in the cloud only where that is enabled.
pub(super) fn is_ready(door: &Door) -> bool {
    let far = door.house.cloud_is_open();
    door.house.snapshot().servers.iter().any(|it| is_usable(it, far))
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
    let (snapshot, look) = (door.house.snapshot(), door.house.traffic().look());
    let figures = door.house.with_stats(|it| it.all_live(hour(wall_ms())));
    snapshot.servers.iter().map(|it| view_of(door, it, &look, figures.get(&it.id))).collect()
}

pub(super) fn server_view(door: &Door, server: &Server) -> ServerView {
    let figures = door.house.with_stats(|it| it.live(&server.id, hour(wall_ms())));
    view_of(door, server, &door.house.traffic().look(), Some(&figures))
}

fn view_of(door: &Door, server: &Server, look: &Look, figures: Option<&Row>) -> ServerView {
    let traffic = door.house.traffic();
    let percentiles = |of: fn(&Row) -> Spread| {
        figures.map(of).map_or_else(Percentiles::default, |it| Percentiles { p50: it.p50, p95: it.p95 })
    };
    let live = LiveFigures {
        in_flight: look.of(&server.id),
        limit: traffic.limit(&server.id, server.limit),
        queued: traffic.queued_for(&server.id).try_into().unwrap_or(u32::MAX),
        latency_ms: percentiles(|it| it.total_ms),
        first_token_ms: percentiles(|it| it.first_token_ms),
        tokens_per_second: figures.and_then(|it| it.tokens_per_second.p50),
        success_rate: figures.and_then(|it| it.success_rate),
    };
    ServerView::of(server, &live)
}

pub(super) async fn server(knock: Knock) -> Response<Body> {
    match knock.door.house.snapshot().server(&knock.rest) {
        Some(server) => json(StatusCode::OK, &server_view(&knock.door, server)),
        None => no_server(&knock),
    }
}

fn no_server(knock: &Knock) -> Response<Body> {
    knock.refuse(&unknown_server(&knock.door, &knock.rest))
}

fn unknown_server(door: &Door, id: &str) -> Failure {
    let snapshot = door.house.snapshot();
    let known = snapshot.servers.iter().map(|it| it.id.as_str()).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none".to_owned() } else { known };
    Failure::NotFound(format!("no server `{id}`; known: {known}"))
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
    if door.house.bars(&endpoint) {
        let why = format!("{endpoint} is in the cloud, which is not enabled ([cloud] enabled)");
        return crate::relay::refusal(&Failure::Forbidden(why), shape, &request_id);
    }
    door.house.add(endpoint.clone());
    let server = door.house.recognised(&endpoint, RECOGNISE).await;
    door.house.settled().await;
    let status = if server.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let server = server.map(|it| server_view(&door, &it));
    json(status, &Added { url: endpoint.to_string(), server })
}

pub(super) async fn forget(knock: Knock) -> Response<Body> {
    match knock.door.house.change(|registry, now| registry.forget(&knock.rest, now)) {
        Some(_) => {
            knock.door.house.settled().await;
            json(StatusCode::OK, &json!({"forgotten": knock.rest}))
        }
        None => no_server(&knock),
    }
}

pub(super) async fn drain(knock: Knock) -> Response<Body> {
    let done = knock.door.house.change(|registry, now| registry.drain(&knock.rest, now));
    changed(&knock, done.is_some()).await
}

pub(super) async fn resume(knock: Knock) -> Response<Body> {
    let done = knock.door.house.change(|registry, now| registry.resume(&knock.rest, now));
    changed(&knock, done.is_some()).await
}

pub(super) async fn trust(knock: Knock) -> Response<Body> {
    let Knock { door, body, rest, request_id, shape, .. } = knock;
    match trusted(&door, &rest, body).await {
        Ok(view) => json(StatusCode::OK, &view),
        Err(failure) => crate::relay::refusal(&failure, shape, &request_id),
    }
}

async fn trusted(door: &Door, id: &str, body: Incoming) -> Result<ServerView, Failure> {
    let body = body::read(body, CONTROL_BODY).await?;
    let wish = match body.trim_ascii() {
        b"" => TrustServer::default(),
        text => serde_json::from_slice(text)
            .map_err(|error| Failure::BadRequest(format!("the body is not {{\"pin\": true}}: {error}")))?,
    };
    let house = &door.house;
    let unknown = || unknown_server(door, id);
    let server = house.snapshot().server(id).cloned().ok_or_else(unknown)?;
    let pin = pin_of(door, &server, wish).await?;
    house.trust(id, pin).ok_or_else(unknown)?;
    house.settled().await;
    let server = house.snapshot().server(id).cloned().ok_or_else(unknown)?;
    Ok(server_view(door, &server))
}

/// The TLS key that trust is to be bound to: the one that a person knows, or the one that is
/// shown now. Without either, somebody else has to vouch for the server.
async fn pin_of(door: &Door, server: &Server, wish: TrustServer) -> Result<Option<Pin>, Failure> {
    let (relay, endpoint) = (&door.relay, &server.endpoint);
    let speaks_tls = matches!(endpoint.address(), Address::Tcp { tls: true, .. });
    let failed = |fault: Fault| Failure::BadRequest(format!("{} cannot be looked at: it {fault}", server.id));
    match wish.pin {
        PinWish::Key(_) | PinWish::Shown(true) if !speaks_tls => {
            Err(Failure::BadRequest(format!("{endpoint} speaks no TLS, so there is no key to pin")))
        }
        PinWish::Key(pin) => Ok(Some(pin)),
        PinWish::Shown(true) => relay.tls_key(endpoint).await.map(Some).map_err(failed),
        PinWish::Shown(false) if speaks_tls => match relay.is_vouched_for(endpoint).await {
            Err(fault) if fault.cause == Cause::Tls => Err(Failure::BadRequest(format!(
                "nobody vouches for the certificate of {}: trust it with its key (`--pin`), or name its \
                 authority in [[servers]] (tls = {{ ca = \"…\" }})",
                server.id
            ))),
            Ok(()) | Err(_) => Ok(None),
        },
        PinWish::Shown(false) => Ok(None),
    }
}

pub(super) async fn distrust(knock: Knock) -> Response<Body> {
    let done = knock.door.house.distrust(&knock.rest);
    changed(&knock, done.is_some()).await
}

async fn changed(knock: &Knock, done: bool) -> Response<Body> {
    if done {
        knock.door.house.settled().await;
    }
    match knock.door.house.snapshot().server(&knock.rest).filter(|_| done) {
        Some(server) => json(StatusCode::OK, &server_view(&knock.door, server)),
        None => no_server(knock),
    }
}

pub(super) async fn probe(knock: Knock) -> Response<Body> {
    let asked = knock.door.house.probe_all();
    json(StatusCode::ACCEPTED, &json!({"probing": asked}))
}

pub(super) async fn models(knock: Knock) -> Response<Body> {
    json(StatusCode::OK, &ModelList { models: model_list(&knock.door) })
}

pub(super) fn model_list(door: &Door) -> Vec<ModelView> {
    model_views(&door.house.snapshot(), &door.settings().aliases)
}

pub(super) async fn model(knock: Knock) -> Response<Body> {
    let models = model_list(&knock.door);
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
    json(StatusCode::OK, &knock.door.settings().view)
}
