//! Tells a browser that pages of a configured origin may ask us and read what we say.
//!
//! Without `[listen] origins` nothing of this is ever sent, and a page cannot even
//! try: what a browser asks beforehand is answered like any wrong method. Who may
//! come in is decided at the door; this only says it in the browser's words.

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
    },
};

use crate::relay::{Body, full};

/// A public page that asks an address of this machine needs this said to some browsers.
const PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: &str = "access-control-request-private-network";

/// A request from a page of a configured origin.
#[derive(Clone, Debug)]
pub(super) struct Cors {
    origin: HeaderValue,
}

impl Cors {
    /// `None` unless the origin is one of `configured`, which are in small letters.
    pub(super) fn of(headers: &HeaderMap, configured: &[String]) -> Option<Self> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?.trim().to_ascii_lowercase();
        configured.contains(&text).then(|| Self { origin: origin.clone() })
    }

    /// The answer to a browser that asks beforehand whether it may ask.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        // SDKs send headers of their own, and all of them are harmless: what we do not know we do not read.
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        if headers.contains_key(REQUEST_PRIVATE_NETWORK) {
            answer.insert(PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        // Ten minutes: a page does not ask twice for each request, and soon sees a changed configuration.
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        Some(response)
    }

    /// Lets the page read an answer.
    pub(super) fn mark(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn cors(origin: &str) -> Option<Cors> {
        Cors::of(&headers(&[("origin", origin)]), &["https://chat.example".to_owned()])
    }

    #[test]
    fn only_a_configured_origin_hears_of_it_and_as_it_wrote_itself() {
        let mut answer = HeaderMap::new();
        cors("https://Chat.example").unwrap().mark(&mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://Chat.example");
        for foreign in ["null", "", "http://chat.example", "https://chat.example.evil"] {
            assert!(cors(foreign).is_none(), "{foreign}");
        }
        assert!(Cors::of(&HeaderMap::new(), &["https://chat.example".to_owned()]).is_none());
    }

    #[test]
    fn a_browser_that_asks_beforehand_is_told_what_it_may() {
        let cors = cors("https://chat.example").unwrap();
        let asked = headers(&[
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type"),
            (REQUEST_PRIVATE_NETWORK, "true"),
        ]);
        let answer = cors.preflight(&Method::OPTIONS, &asked).unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, content-type");
        assert_eq!(answer.headers()[PRIVATE_NETWORK], "true");
        assert!(cors.preflight(&Method::GET, &asked).is_none());
        assert!(cors.preflight(&Method::OPTIONS, &HeaderMap::new()).is_none());
    }
}
