//! The route table.

use std::pin::Pin;

use hyper::{Method, Response};
use percent_encoding::percent_decode_str;

use super::{
    Knock, control, errand, events, export, history, listing, metrics, ollama, openapi, operations, tokens,
};
use crate::{dialect::Door, relay::Body};

/// Whether a route changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// It reads, or generates.
    Open,
    /// It changes what the daemon knows or does.
    Changes,
}

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// One route.
pub(super) struct Route {
    pub(super) method: &'static str,
    /// The path; `{…}` at its end takes the rest, `{…}` in the middle one segment.
    pub(super) path: &'static str,
    pub(super) guard: Guard,
    /// What it does, for the OpenAPI description.
    pub(super) summary: &'static str,
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    pub(super) handler: fn(Knock) -> Answer,
}

impl Route {
    /// Whether machines ask for it again and again while nobody wants anything.
    pub(super) fn is_of_a_watcher(&self) -> bool {
        matches!(self.path, "/healthz" | "/readyz" | "/metrics")
    }
}

macro_rules! routes {
    ($($guard:ident $method:ident $path:literal $([$($query:literal),*])? => $handler:expr, $summary:literal;)*) => {
        pub(super) static TABLE: &[Route] = &[$(Route {
            method: stringify!($method),
            path: $path,
            guard: Guard::$guard,
            summary: $summary,
            query: &[$($($query),*)?],
            handler: |knock| Box::pin(($handler)(knock)),
        }),*];
    };
}

// The busiest first: the table is searched from the top.
routes! {
    Open POST "/v1/chat/completions" => |it| errand::run(it, Door::OpenAiChat), "Answer a conversation";
    Open POST "/v1/messages" => |it| errand::run(it, Door::Messages), "Answer a conversation, as Anthropic does";
    Open POST "/api/chat" => |it| errand::run(it, Door::OllamaChat), "Answer a conversation, as Ollama does";
    Open POST "/v1/responses" => |it| errand::run(it, Door::Responses), "Answer a conversation in items";
    Open POST "/v1/completions" => |it| errand::run(it, Door::OpenAiComplete), "Continue a text";
    Open POST "/api/generate" => |it| errand::run(it, Door::OllamaGenerate), "Answer a prompt, or continue a text";
    Open POST "/v1/embeddings" => |it| errand::run(it, Door::OpenAiEmbed), "Turn text into vectors";
    Open POST "/api/embed" => |it| errand::run(it, Door::OllamaEmbed), "Turn texts into vectors, as Ollama does";
    Open POST "/api/embeddings" => |it| errand::run(it, Door::OllamaEmbeddings), "Turn one text into a vector";
    Open POST "/messages" => |it| errand::run(it, Door::Messages), "/v1/messages, for a base URL that has lost its /v1";
    Open POST "/v1/v1/messages" => |it| errand::run(it, Door::Messages), "/v1/messages, for a base URL that has a /v1 too many";
    Open POST "/v1/messages/count_tokens" => tokens::count, "Count the tokens of a conversation";
    Open POST "/messages/count_tokens" => tokens::count, "/v1/messages/count_tokens, for a base URL that has lost its /v1";
    Open POST "/v1/v1/messages/count_tokens" => tokens::count, "/v1/messages/count_tokens, for a base URL that has a /v1 too many";
    Open POST "/lovable/v1/generate" => errand::generate, "Answer a prompt or a conversation, as /v1/chat/completions does";
    Open GET "/v1/models" => listing::list, "List the models of all servers";
    Open GET "/v1/models/{id}" => listing::one, "Describe one model";
    Open GET "/" => ollama::greeting, "Greet as Ollama does";
    Open GET "/api/version" => ollama::version, "The version of Ollama's language";
    Open GET "/api/tags" => ollama::tags, "List the models of all servers, as Ollama does";
    Open GET "/api/ps" => ollama::ps, "List the models that are in memory";
    Open POST "/api/show" => ollama::show, "Describe one model: {\"model\": \"...\"}";
    Open GET "/healthz" => operations::health, "Say that the process answers";
    Open GET "/readyz" => operations::ready, "Say whether some server is usable: 200 or 503";
    Open GET "/metrics" => metrics::metrics, "Numbers for monitoring systems, as Prometheus reads them";
    Open GET "/lovable/v1/status" => control::status, "Health of the daemon, servers, models and traffic";
    Open GET "/lovable/v1/servers" => control::servers, "The servers found";
    Changes POST "/lovable/v1/servers" => control::add, "Make an address known: {\"url\": \"...\"}";
    Open GET "/lovable/v1/servers/{id}" => control::server, "One server";
    Changes DELETE "/lovable/v1/servers/{id}" => control::forget, "Forget a server";
    Changes POST "/lovable/v1/servers/{id}/drain" => control::drain, "Give a server nothing new";
    Changes POST "/lovable/v1/servers/{id}/resume" => control::resume, "Use a drained server again";
    Changes POST "/lovable/v1/servers/{id}/trust" => control::trust, "Trust a server as what it is now; {\"pin\": true} with its TLS key";
    Changes POST "/lovable/v1/servers/{id}/distrust" => control::distrust, "Give a server no prompt and no key";
    Changes POST "/lovable/v1/probe" => control::probe, "Ask every known address again, now";
    Open GET "/lovable/v1/models" => control::models, "Models across all servers";
    Open GET "/lovable/v1/models/{name}" => control::model, "One model in full";
    Open GET "/lovable/v1/stats" ["by", "since", "until", "server", "model", "caller"] => history::stats, "Requests, success and times";
    Changes DELETE "/lovable/v1/stats" => history::clear, "Forget all requests and statistics";
    Open GET "/lovable/v1/stats/compare" ["a", "b", "since", "until"] => history::compare, "Two servers or models side by side, with intervals of confidence";
    Open GET "/lovable/v1/stats/export" ["format", "since", "until", "server", "model", "caller"] => export::export, "All requests, as csv or jsonl";
    Open GET "/lovable/v1/requests" ["limit"] => history::requests, "The last requests, newest first";
    Open GET "/lovable/v1/requests/{id}" => history::request, "How one request was decided";
    Open GET "/lovable/v1/events" => events::follow, "What changes, as server-sent events; opens with the whole state";
    Open GET "/lovable/v1/config" => control::config, "The settings in force and where each came from";
    Open GET "/lovable/v1/openapi.json" => openapi::describe, "This description";
}

/// What the table has for a request.
pub(super) enum Found {
    Route(&'static Route),
    OtherMethod(&'static str),
    Nothing,
}

pub(super) fn find(method: &Method, path: &str) -> Found {
    // Where there is something to get, a HEAD tells of it; hyper leaves the body away.
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut other = None;
    for route in TABLE {
        if wildcard(route.path, path).is_some() {
            if route.method == wanted {
                return Found::Route(route);
            }
            other = other.or(Some(route));
        }
    }
    match other {
        Some(route) => Found::OtherMethod(allowed(route.path)),
        None => Found::Nothing,
    }
}

/// Whether a request would change something.
pub(crate) fn changes(method: &Method, path: &str) -> bool {
    matches!(find(method, path), Found::Route(route) if route.guard == Guard::Changes)
}

/// The methods of a path, for `Allow`.
fn allowed(path: &str) -> &'static str {
    let has = |method: &str| TABLE.iter().any(|it| it.path == path && it.method == method);
    match (has("GET"), has("POST"), has("DELETE")) {
        (true, true, _) => "GET, POST",
        (true, false, true) => "GET, DELETE",
        (true, false, false) => "GET",
        (false, _, true) => "DELETE",
        (false, ..) => "POST",
    }
}

/// What stands in the place of `{…}`, decoded; empty when the route has none.
pub(super) fn rest(route: &Route, path: &str) -> Result<String, std::str::Utf8Error> {
    let raw = wildcard(route.path, path).unwrap_or_default();
    percent_decode_str(raw).decode_utf8().map(|it| it.into_owned())
}

/// The part of `path` that `{…}` in `pattern` stands for, `Some("")` when they are simply equal.
fn wildcard<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('{') else { return (pattern == path).then_some("") };
    let after = after.split_once('}').map_or("", |(_, after)| after);
    let middle = path.strip_prefix(before)?.strip_suffix(after)?;
    // Model names may contain slashes; ids in the middle of a path do not.
    let fits = !middle.is_empty() && (after.is_empty() || !middle.contains('/'));
    fits.then_some(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: &str) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = match find(&method, path) {
            Found::Route(route) => format!("{} [{}]", route.path, rest(route, path).unwrap()),
            Found::OtherMethod(allow) => format!("allow {allow}"),
            Found::Nothing => "nothing".to_owned(),
        };
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn paths_find_their_routes() {
        check("POST", "/v1/chat/completions", "/v1/chat/completions []");
        check("GET", "/v1/chat/completions", "allow POST");
        check("HEAD", "/healthz", "/healthz []");
        check("HEAD", "/v1/chat/completions", "allow POST");
        check("GET", "/v1/models/openai%2Fgpt-oss", "/v1/models/{id} [openai/gpt-oss]");
        check("GET", "/v1/models/openai/gpt-oss", "/v1/models/{id} [openai/gpt-oss]");
        check("GET", "/v1/models/", "nothing");
        check("PUT", "/lovable/v1/servers", "allow GET, POST");
        check("POST", "/lovable/v1/servers/a", "allow GET, DELETE");
        check("POST", "/lovable/v1/servers/a/drain", "/lovable/v1/servers/{id}/drain [a]");
        check("POST", "/lovable/v1/servers/a/trust", "/lovable/v1/servers/{id}/trust [a]");
        check("POST", "/lovable/v1/servers/a/distrust", "/lovable/v1/servers/{id}/distrust [a]");
        check("GET", "/lovable/v1/requests/r-1", "/lovable/v1/requests/{id} [r-1]");
        check("GET", "/nowhere", "nothing");
        check("HEAD", "/", "/ []");
        check("POST", "/", "allow GET");
        check("POST", "/v1/v1/messages", "/v1/v1/messages []");
        check("GET", "/api/show", "allow POST");
        check("HEAD", "/api/tags", "/api/tags []");
    }

    #[test]
    fn no_two_routes_are_the_same() {
        for (at, route) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..at].iter().any(|it| it.path == route.path && it.method == route.method),
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
