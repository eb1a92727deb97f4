//! Wires the rooms together, owns their tasks, and stops everything in order.
//!
//! It knows no details of any room: it builds each from its own settings, hands
//! out what they need of each other, and waits. Stopping is: accept nothing new,
//! tell everyone, wait for running answers up to a limit, flush, leave. A second
//! signal skips the waiting.

mod accept;
mod furnish;
mod manager;
#[cfg(test)]
mod randomised;
mod reload;
mod settings;
mod watching;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    runtime,
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use self::{accept::Doorway, furnish::House, manager::Manager, reload::Reload, settings::Rooms};
use crate::{
    otlp, scan,
    service::{
        launch::{Plan, RunError},
        log::Log,
        signals::{Signal, Signals, signals},
    },
};

/// How long running answers may take to end once we are told to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// Threads that carry requests. One carries tens of thousands of events a second; more than
/// four would only cost memory on a machine whose processors belong to the models.
const MOST_WORKERS: usize = 4;

/// Serves until told to stop.
pub fn run(plan: Plan) -> Result<(), RunError> {
    raise_file_limit();
    leave_no_core();
    let workers = std::thread::available_parallelism().map_or(1, |it| it.get().min(MOST_WORKERS));
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("lovabled")
        .enable_all()
        .build()
        .map_err(|error| RunError::Failed(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(serve(plan));
    // Whatever still runs has been told to stop and waited for; the rest is cut here.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

async fn serve(plan: Plan) -> Result<(), RunError> {
    let mut signals =
        signals().map_err(|error| RunError::Failed(format!("cannot watch for signals: {error}")))?;
    let Plan { loaded, flags, socket, tcp, demo, log, readiness } = plan;
    readiness.status("opening the store");
    let scope = loaded.paths.scope;
    let listen = tcp.as_ref().and_then(|it| it.local_addr().ok());
    let socket_path = socket.file.path().to_owned();
    let inherited = socket.file.is_inherited();
    let (stop, stopping) = watch::channel(false);
    let House { rooms, demo: _simulated } =
        furnish::furnish(&loaded, socket_path.clone(), listen, demo, stopping.clone()).await?;
    let Rooms { house, sharing, upstream, door, looking, .. } = rooms.clone();

    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    let doorway = Doorway { door: door.clone(), scope, stopping: stopping.clone(), alive: alive.clone() };
    let mut tasks = JoinSet::new();
    let failed = |error: io::Error| RunError::Failed(format!("cannot serve: {error}"));
    let listener = UnixListener::from_std(socket.listener).map_err(failed)?;
    house.begin_to_look();
    let telling = tokio::spawn(otlp::run(rooms.collecting.subscribe(), tells(&rooms)));
    tasks.spawn(accept::socket(doorway.clone(), listener));
    if let Some(tcp) = tcp {
        let listener = TcpListener::from_std(tcp).map_err(failed)?;
        tasks.spawn(accept::tcp(doorway.clone(), listener));
    }
    drop(doorway);
    tasks.spawn(house.clone().keep_figures());
    tasks.spawn(house.clone().tidy());
    tasks.spawn(sharing.run());
    tasks.spawn(house.clone().watch_hardware());
    let searching = scan::run(looking.subscribe(), upstream, house.clone(), stopping.clone());
    tasks.spawn(async move {
        searching.await;
        // What was announced is withdrawn by now.
        drop(alive);
    });
    let hang_up = Arc::new(Notify::new());
    tasks.spawn(watching::models(house.clone()));
    let reload = Reload::new(rooms, log.clone(), flags, loaded);
    tasks.spawn(watching::configuration(reload, hang_up.clone()));
    let manager =
        Manager { readiness: readiness.clone(), house: house.clone(), socket: socket_path, inherited };
    tasks.spawn(manager.inform(stopping.clone()));

    until_told_to_stop(&mut signals, &log, &hang_up).await;
    readiness.stopping(&manager::farewell(door.running()));
    tracing::info!("stopping: running answers may end");
    // Nobody may be watching any more, which is as well.
    let _ = stop.send(true);
    tokio::select! {
        _ = all_gone.recv() => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("some answers were cut after {} s", DRAIN.as_secs()),
        () = until_told_to_stop(&mut signals, &log, &hang_up) => tracing::warn!("told again: leaving at once"),
    }
    // With these goes whoever could name another collector, and the last requests are told.
    tasks.shutdown().await;
    let _ = telling.await;
    house.close().await;
    socket.file.remove();
    tracing::info!("stopped");
    Ok(())
}

/// What a collector is told of, if there is one.
fn tells(rooms: &Rooms) -> otlp::Source {
    let (house, door) = (rooms.house.clone(), rooms.door.clone());
    otlp::Source {
        instance: house.instance().to_owned(),
        metrics: Box::new(move || door.metrics()),
        outbox: Box::new(move |it| house.leave_at(it)),
    }
}

async fn until_told_to_stop(signals: &mut Signals, log: &Log, hang_up: &Notify) {
    loop {
        match signals.next().await {
            Signal::Stop => return,
            Signal::ReopenLog => log.reopen(),
            Signal::Reload => {
                tracing::info!("told to read the configuration again");
                hang_up.notify_one();
            }
        }
    }
}

/// Prompts are in our memory, and are not to be on the disk after a crash, whoever started us.
/// Programs that the system hands a core to (systemd's, Ubuntu's) go by this limit too.
fn leave_no_core() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "a crash may leave a core with prompts in it");
    }
}

/// A stream takes two files, and desktops give a process a thousand.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}
