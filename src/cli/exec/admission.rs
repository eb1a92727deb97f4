//! Who may cross a bridge, and what stays behind: the rules of the TCP door, and a
//! key on top of them.

use std::net::Ipv4Addr;

use hyper::{
    HeaderMap, Method, Uri,
    header::{self, HeaderName},
    http::request::Parts,
};

use super::key::Key;
use crate::{
    api,
    fault::Failure,
    relay::Shape,
    service::tcp::{Foreign, foreign},
};

/// The path and query for the daemon, without the key; or why the request stays out.
pub(super) fn admit(key: &Key, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<String, Failure> {
    match foreign(headers, uri, Ipv4Addr::LOCALHOST.into(), &[], &[]) {
        None => {}
        Some(Foreign::Host) => {
            return Err(Failure::Forbidden("this Host is not one of mine; use 127.0.0.1".to_owned()));
        }
        Some(Foreign::Page) => {
            return Err(Failure::Forbidden("requests of web pages are refused".to_owned()));
        }
    }
    let path = match without_key(key, uri.path()) {
        Some(rest) => rest,
        None if holds_key(key, headers) => uri.path(),
        None => {
            return Err(Failure::WrongKey(
                "this bridge admits only the program that it was made for, with the key in its OPENAI_API_KEY, \
                 ANTHROPIC_API_KEY or OLLAMA_HOST"
                    .to_owned(),
            ));
        }
    };
    if api::changes(method, path) {
        return Err(Failure::Forbidden(
            "this changes something, which is only possible over the socket".to_owned(),
        ));
    }
    Ok(match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    })
}

/// The path behind the key, if the key is its first part.
fn without_key<'a>(key: &Key, path: &'a str) -> Option<&'a str> {
    let (first, rest) = match path.strip_prefix('/')?.split_once('/') {
        Some((first, rest)) => (first, &path[path.len() - rest.len() - 1..]),
        None => (&path[1..], "/"),
    };
    key.is(first.as_bytes()).then_some(rest)
}

fn holds_key(key: &Key, headers: &HeaderMap) -> bool {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().any(|it| {
        let it = it.as_bytes();
        let (scheme, rest) = it.split_at_checked(7).unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"bearer ") && key.is(rest.trim_ascii())
    });
    bearer || headers.get_all("x-api-key").iter().any(|it| key.is(it.as_bytes()))
}

/// Headers about the connection, not the request; what they say is ours to say.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Removes what is about the connection, in either direction.
pub(super) fn strip_connection(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|it| it.to_str().ok());
    let named: Vec<_> =
        named.flat_map(|it| it.split(',')).filter_map(|it| it.trim().parse::<HeaderName>().ok()).collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

/// Makes the request that the daemon gets: without the key and whatever else is between
/// the program and us.
pub(super) fn readdress(parts: &mut Parts, path: &str) -> Result<(), Failure> {
    strip_connection(&mut parts.headers);
    for name in [header::AUTHORIZATION, header::EXPECT, HeaderName::from_static("x-api-key")] {
        parts.headers.remove(name);
    }
    parts.uri = path.parse().map_err(|_| Failure::BadRequest("the path is not valid".to_owned()))?;
    parts.version = hyper::Version::HTTP_11;
    Ok(())
}

/// The shapes of refusals at this path. A key may stand before it, also a wrong one.
pub(super) fn shape_of(key: &Key, path: &str, headers: &HeaderMap) -> Shape {
    let path = match path.strip_prefix('/').and_then(|it| it.split_once('/')) {
        Some((first, rest)) if key.is_like(first) => &path[path.len() - rest.len() - 1..],
        None if key.is_like(path.trim_start_matches('/')) => "/",
        _ => path,
    };
    api::shape_of(path, headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-lovable-0123";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    /// What the daemon would be asked, or the status of the refusal.
    fn check(asked: &str, pairs: &[(&'static str, &str)], expected: &str) {
        let (method, uri) = asked.split_once(' ').unwrap();
        let mut headers = headers(pairs);
        headers.entry("host").or_insert_with(|| "127.0.0.1:1".parse().unwrap());
        let admitted = admit(&Key::from(KEY), &method.parse().unwrap(), &uri.parse().unwrap(), &headers);
        let said = admitted.unwrap_or_else(|failure| failure.status().to_string());
        assert_eq!(said, expected, "{asked} {pairs:?}");
    }

    #[test]
    fn the_key_is_a_bearer_an_api_key_or_the_first_part_of_the_path() {
        check("POST /v1/responses", &[("authorization", "Bearer sk-lovable-0123")], "/v1/responses");
        check("POST /v1/responses", &[("authorization", "bearer  sk-lovable-0123")], "/v1/responses");
        check("POST /v1/messages?beta=true", &[("x-api-key", KEY)], "/v1/messages?beta=true");
        check("GET /sk-lovable-0123/api/tags", &[], "/api/tags");
        check("GET /sk-lovable-0123/v1/models/a%2Fb?x=1", &[], "/v1/models/a%2Fb?x=1");
        check("HEAD /sk-lovable-0123/", &[], "/");
        check("HEAD /sk-lovable-0123", &[], "/");
        check("GET /sk-lovable-0123/api/tags", &[("authorization", "Bearer other")], "/api/tags");
    }

    #[test]
    fn nothing_else_opens() {
        for pairs in [
            &[][..],
            &[("authorization", "Bearer sk-lovable-0124")],
            &[("authorization", "sk-lovable-0123")],
            &[("authorization", "Basic sk-lovable-0123")],
            &[("authorization", "Bearer ")],
            &[("x-api-key", "")],
            &[("cookie", "sk-lovable-0123")],
        ] {
            check("GET /v1/models", pairs, "401");
        }
        check("GET /", &[], "401");
        check("GET /v1/sk-lovable-0123/models", &[], "401");
        check("GET /v1/models?key=sk-lovable-0123", &[], "401");
        check("GET //sk-lovable-0123/v1/models", &[], "401");
        check("OPTIONS *", &[], "401");
    }

    #[test]
    fn the_rules_of_the_door_hold_with_a_key_too() {
        let bearer = ("authorization", "Bearer sk-lovable-0123");
        check("GET /v1/models", &[bearer, ("host", "evil.example")], "403");
        check("GET /v1/models", &[bearer, ("host", "localhost:99")], "/v1/models");
        check("GET /v1/models", &[bearer, ("origin", "https://evil.example")], "403");
        check("GET /v1/models", &[bearer, ("origin", "null")], "403");
        check("GET /v1/models", &[bearer, ("sec-fetch-site", "cross-site")], "403");
        check("GET /lovable/v1/servers", &[bearer], "/lovable/v1/servers");
        check("DELETE /lovable/v1/servers/ollama", &[bearer], "403");
        check("POST /lovable/v1/probe", &[bearer], "403");
        check("POST /sk-lovable-0123/lovable/v1/probe", &[], "403");
    }

    #[test]
    fn the_daemon_does_not_see_the_key() {
        let request = hyper::Request::builder()
            .uri("/sk-lovable-0123/api/chat")
            .header("authorization", "Bearer sk-lovable-0123")
            .header("x-api-key", KEY)
            .header("connection", "keep-alive, x-hop")
            .header("x-hop", "1")
            .header("expect", "100-continue")
            .header("transfer-encoding", "chunked")
            .header("x-lovable-session", "s")
            .body(())
            .unwrap();
        let (mut parts, ()) = request.into_parts();
        readdress(&mut parts, "/api/chat").unwrap();
        let left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!((parts.uri.to_string().as_str(), left), ("/api/chat", vec!["x-lovable-session"]));
    }

    #[test]
    fn a_refusal_is_in_the_language_of_the_path_behind_the_key() {
        for (path, shape) in [
            ("/v1/chat/completions", "openai"),
            ("/v1/messages", "anthropic"),
            ("/api/chat", "ollama"),
            ("/lovable/v1/status", "lovable"),
            ("/sk-lovable-0123/v1/messages", "anthropic"),
            ("/sk-lovable-9999/api/tags", "ollama"),
            ("/sk-lovable-9999/lovable/v1/probe", "lovable"),
            ("/sk-lovable-9999", "ollama"),
            ("/", "ollama"),
        ] {
            let said = shape_of(&Key::from(KEY), path, &HeaderMap::new());
            assert_eq!(format!("{said:?}"), shape, "{path}");
        }
    }
}
