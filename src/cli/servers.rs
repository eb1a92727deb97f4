//! `servers`: the servers found, and what the person says about them.

use super::{
    Context, Exit, Trouble, hint, now_ms,
    out::{Ink, Look},
    say,
    table::{Cell, Column, table},
};
use crate::{
    registry::Admission,
    server::{Endpoint, Problem, Source, Zone},
    wire::{ServerList, ServerView},
};

/// Without a verb, lists them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the servers found
    List,
    /// Make a server known by its address
    Add {
        /// Its base URL: http://box:11434, https://box/v1 or unix:/path/to.sock
        url: String,
    },
    /// Forget a server; should it be found again, it gets another id
    Forget {
        /// Its id, as `servers` lists it
        id: String,
    },
    /// Trust a server as what it is now: this kind, at this address
    ///
    /// A server on another machine, or another user's, gets no prompt and no key before.
    /// When another kind of server answers there it has to be trusted anew.
    Trust {
        /// Its id, as `servers` lists it
        id: String,
        /// Trust it only with the TLS key that it shows now
        #[arg(long)]
        pin: bool,
    },
    /// Give a server no prompt and no key, whatever else speaks for it
    Distrust {
        /// Its id, as `servers` lists it
        id: String,
    },
    /// Let a server finish what it has, and send it nothing new
    Drain {
        /// Its id, as `servers` lists it
        id: String,
    },
    /// Take a drained server back
    Resume {
        /// Its id, as `servers` lists it
        id: String,
    },
    /// Ask all known addresses again now
    Probe,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(context).await?,
        Verb::Add { url } => add(&url, context).await?,
        Verb::Forget { id } => {
            let reply = context.client.forget(&id).await?;
            context.show(&reply, |_, _| format!("{} is forgotten\n", say::clean(&id)))?;
        }
        Verb::Trust { id, pin } => {
            let reply = context.client.trust(&id, pin).await?;
            context.show(&reply, |it, _| trusted(it))?;
        }
        Verb::Distrust { id } => {
            let reply = context.client.distrust(&id).await?;
            context.show(&reply, |it, _| {
                let id = say::clean(it.id.as_str());
                format!("{id} gets no prompt and no key until `lovablectl servers trust {id}`\n")
            })?;
        }
        Verb::Drain { id } => {
            let reply = context.client.drain(&id).await?;
            context.show(&reply, |it, _| {
                let left = if it.in_flight == 0 {
                    "has nothing left to finish".to_owned()
                } else {
                    format!("finishes {}", say::plural(it.in_flight.into(), "request"))
                };
                format!("{} gets nothing new and {left}\n", it.id)
            })?;
        }
        Verb::Resume { id } => {
            let reply = context.client.resume(&id).await?;
            context.show(&reply, |it, look| format!("{} is taken back; it {}\n", it.id, is(it, look)))?;
        }
        Verb::Probe => {
            let reply = context.client.probe().await?;
            context.show(&reply, |_, _| "all known addresses are being asked again\n".to_owned())?;
        }
    }
    Ok(Exit::Fine)
}

async fn list(context: &mut Context) -> Result<(), Trouble> {
    let reply = context.client.servers().await?;
    if !context.json && reply.read()?.servers.is_empty() {
        context.talk.line("No model server was found.")?;
        return context.talk.text(&hint::no_server());
    }
    context.show(&reply, |ServerList { servers }, look| page(servers, look, now_ms()))
}

async fn add(url: &str, context: &mut Context) -> Result<(), Trouble> {
    // A typo is told at once, and in the same words whether or not the daemon runs.
    if let Err(error) = crate::server::Endpoint::parse(url) {
        return Err(Trouble::Usage(format!("`{url}`: {error}")));
    }
    let reply = context.client.add_server(url).await?;
    context.show(&reply, |added, look| match &added.server {
        Some(server) => {
            let url = say::clean(&added.url);
            let mut said = format!("{} is {} at {url}; it {}\n", server.id, server.kind, is(server, look));
            if server.admission == Admission::Untrusted
                && let Some(note) = note(server, now_ms())
            {
                said.push_str(&format!("{note}\n"));
            }
            said
        }
        None => {
            format!(
                "{} is noted; nothing is recognised there yet, it will be asked again\n",
                say::clean(&added.url)
            )
        }
    })
}

/// What trust is bound to.
fn trusted(server: &ServerView) -> String {
    let id = say::clean(server.id.as_str());
    let Some(trust) = &server.trust else {
        return format!("{id} is trusted, as what is yours or the system's is\n");
    };
    let (kind, address) = (say::clean(trust.kind.as_str()), say::clean(&trust.address));
    match &trust.tls_pin {
        Some(pin) => format!(
            "{id} is trusted as {kind} at {address} with the TLS key {pin};\n\
             another kind or another key there waits until you trust it\n"
        ),
        None => {
            format!("{id} is trusted as {kind} at {address};\nanother kind there waits until you trust it\n")
        }
    }
}

const FULL: [Column; 12] = [
    Column::new("ID").shrinks(14),
    Column::new("KIND").leaves(5).shrinks(10),
    Column::new("VERSION").leaves(10).shrinks(6),
    Column::new("STATE"),
    Column::new("ZONE").leaves(2),
    Column::new("TRUST").leaves(3),
    Column::new("FOUND BY").leaves(7).shrinks(12),
    Column::new("MODELS").right().leaves(4),
    Column::new("BUSY").right().leaves(8),
    Column::new("FIRST TOKEN").right().leaves(9),
    Column::new("SUCCESS").right().leaves(6),
    Column::new("URL").shrinks(24).leaves(1),
];

/// All servers, and below what is wrong with those that are not well.
fn page(servers: &[ServerView], look: Look, now_ms: u64) -> String {
    let rows: Vec<_> = servers
        .iter()
        .map(|it| {
            vec![
                Cell::from(say::clean(it.id.as_str())),
                say::clean(it.kind.as_str()).into(),
                say::or_dash(it.version.as_ref()).into(),
                Cell::inked(format!("{}{}", it.state(), simulated(it)), ink(it)),
                it.zone.as_str().into(),
                trust(it).into(),
                it.found_by.iter().map(say::word).collect::<Vec<_>>().join(", ").into(),
                say::count(it.models.len() as u64).into(),
                busy(it).into(),
                say::or_dash(it.first_token_ms.p50.map(say::ms)).into(),
                say::or_dash(it.success_rate.map(say::percent)).into(),
                say::clean(&it.url).into(),
            ]
        })
        .collect();
    let mut page = table(&FULL, &rows, look);
    let notes: Vec<_> = servers.iter().filter_map(|it| note(it, now_ms)).collect();
    if !notes.is_empty() {
        page.push('\n');
    }
    for note in notes {
        page.push_str(&format!("{note}\n"));
    }
    page
}

const BRIEF: [Column; 5] = [
    Column::new("ID").shrinks(14),
    Column::new("KIND").leaves(3).shrinks(10),
    Column::new("STATE"),
    Column::new("MODELS").right().leaves(2),
    Column::new("URL").shrinks(24).leaves(1),
];

/// The servers in the little that belongs on a page about everything.
pub(super) fn brief(servers: &[ServerView], look: Look) -> String {
    let rows: Vec<_> = servers
        .iter()
        .map(|it| {
            vec![
                Cell::from(say::clean(it.id.as_str())),
                say::clean(it.kind.as_str()).into(),
                state(it),
                say::count(it.models.len() as u64).into(),
                say::clean(&it.url).into(),
            ]
        })
        .collect();
    table(&BRIEF, &rows, look)
}

fn state(server: &ServerView) -> Cell {
    let cloud = if server.zone == Zone::Cloud { " (cloud)" } else { "" };
    Cell::inked(format!("{}{}{cloud}", server.state(), simulated(server)), ink(server))
}

fn simulated(server: &ServerView) -> &'static str {
    if server.simulated { " (simulated)" } else { "" }
}

/// Whether it gets prompts, and because of whom.
fn trust(server: &ServerView) -> &'static str {
    match (server.admission, &server.trust) {
        (Admission::Untrusted, _) => "no",
        (_, Some(trust)) if trust.tls_pin.is_some() => "pinned",
        (_, Some(_)) => "by you",
        (_, None) => "yes",
    }
}

/// The ink of a server's state.
pub(super) fn ink(server: &ServerView) -> Ink {
    match server.state() {
        "up" => Ink::Good,
        "down" | "needs a key" | "wrong host" | "unhealthy" => Ink::Bad,
        _ => Ink::Warn,
    }
}

/// A server's state as the end of a sentence about it: `is up`, `needs a key`.
pub(super) fn is(server: &ServerView, look: Look) -> String {
    let state = look.paint(ink(server), server.state());
    match server.state() {
        "needs a key" => state,
        "wrong host" => format!("is called by the {state}"),
        "trial" => format!("is on {state}"),
        _ => format!("is {state}"),
    }
}

fn busy(server: &ServerView) -> String {
    match server.limit {
        Some(limit) => format!("{}/{limit}", server.in_flight),
        None => server.in_flight.to_string(),
    }
}

/// Whether it is far though its address is near, and no person has said so.
fn forwards(server: &ServerView) -> bool {
    let is_near = Endpoint::parse(&server.url)
        .is_ok_and(|it| it.is_local() || it.ip().is_some_and(|ip| Zone::of(ip) < Zone::Cloud));
    let is_named = server.found_by.iter().any(|it| matches!(it, Source::Config | Source::Environment));
    server.zone == Zone::Cloud && is_near && !is_named
}

/// What a person should know of a server that does not serve.
fn note(server: &ServerView, now_ms: u64) -> Option<String> {
    let id = say::clean(server.id.as_str());
    match server.state() {
        "untrusted" => {
            let why = match (server.problem, &server.trust) {
                (Some(Problem::ChangedKind), Some(trust)) => {
                    let (is, was) = (say::clean(server.kind.as_str()), say::clean(trust.kind.as_str()));
                    format!("{id} is {is} now, and was trusted as {was}; it")
                }
                (Some(Problem::ChangedKey), _) => format!("{id} has another TLS key than was trusted; it"),
                (Some(Problem::ChangedOwner), _) => format!("{id} is another user's than was trusted; it"),
                _ => id.clone(),
            };
            Some(format!("{why} gets no prompt and no key until you trust it: lovablectl servers trust {id}"))
        }
        "needs a key" => {
            Some(format!("{id} wants a key: give it one with key_env or key_file in [[servers]]"))
        }
        "wrong host" => Some(format!("{id} refuses the host name that it is called by")),
        "down" | "suspect" | "trial" => {
            let fault = server.last_fault.as_ref()?;
            let when = fault.at.as_ref().map(|at| format!(", {}", say::ago(at, now_ms))).unwrap_or_default();
            Some(format!("{id} {}{when}", say::clean(&fault.message)))
        }
        _ if forwards(server) => Some(format!(
            "{id} passes requests on to others, so it counts as cloud; if they stay near, say which zone \
             that is in [[servers]]"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn the_table_fits_60_and_120_cells() {
        for width in [60, 120] {
            let page = page(&sample::servers(), Look { width: Some(width), color: false }, sample::NOW_MS);
            insta::assert_snapshot!(format!("servers_{width}"), page);
        }
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let look = |color| Look { width: None, color };
        let colored = page(&sample::servers(), look(true), sample::NOW_MS);
        let bare = ["\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"]
            .iter()
            .fold(colored, |text, code| text.replace(code, ""));
        assert_eq!(bare, page(&sample::servers(), look(false), sample::NOW_MS));
    }
}
