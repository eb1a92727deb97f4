//! Every path that generates: a caller's request becomes an errand for the relay, whatever
//! its language. What a body means is the dialect's to say; here it is only read, with what
//! the headers wish and what of them goes on.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};

use super::{Knock, VIA, body, bytes_of_json};
use crate::{
    dialect::{Door, ollama, openai},
    fault::Failure,
    generate::Caller,
    housekeeping::wall_ms,
    queue::Priority,
    relay::{Body, Errand, Wishes},
    route::Fallback,
};

/// What goes on to a server, beyond what HTTP itself needs.
const PASSED_ON: [&str; 4] = ["accept", "anthropic-version", "anthropic-beta", "traceparent"];

/// Carries out what came in at a door.
pub(super) async fn run(knock: Knock, at: Door) -> Response<Body> {
    relay(knock, at, Ok).await
}

/// The same as chat completions, from our own shorter form.
pub(super) async fn generate(knock: Knock) -> Response<Body> {
    relay(knock, Door::OpenAiChat, |body| openai::generate(&body)).await
}

async fn relay(knock: Knock, at: Door, prepare: fn(Bytes) -> Result<Bytes, Failure>) -> Response<Body> {
    let agent = knock.headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
    let caller = Caller { program: agent.and_then(Caller::program_of), uid: knock.uid() };
    let Knock { door, headers, body, request_id, shape, .. } = knock;
    let errand = async {
        let wishes = wishes(&headers)?;
        let body = prepare(read(&headers, body, door.settings().body_limit).await?)?;
        if let Some(answer) = only_loads(&door, at, &body)? {
            return Ok(Work::Done(answer));
        }
        let request = at.dialect().peek(at, &body)?;
        let pass = pass(&headers, &request_id, door.instance());
        let via = super::hops(&headers).map(str::to_owned).collect();
        let request_id = request_id.clone();
        let errand = Errand { request, body, request_id, wishes, pass, via, shape, caller };
        Ok(Work::Errand(Box::new(errand)))
    };
    match errand.await {
        Ok(Work::Errand(errand)) => door.relay.clone().run(*errand).await,
        Ok(Work::Done(answer)) => bytes_of_json(StatusCode::OK, answer),
        Err(failure) => crate::relay::refusal(&failure, shape, &request_id),
    }
}

/// What there is to do.
enum Work {
    Errand(Box<Errand>),
    /// Nothing more: this is the answer.
    Done(Bytes),
}

/// The answer to Ollama's call for a model to be loaded, which begins many conversations. The
/// model must be there, or the client would learn it with the first question only.
fn only_loads(door: &super::Door, at: Door, body: &Bytes) -> Result<Option<Bytes>, Failure> {
    let theirs = [Door::OllamaChat, Door::OllamaGenerate, Door::OllamaEmbed, Door::OllamaEmbeddings];
    if !theirs.contains(&at) {
        return Ok(None);
    }
    let Some(warm) = ollama::warm(at, body).transpose()? else { return Ok(None) };
    door.relay.meant(&warm.model)?;
    Ok(Some(warm.answer(wall_ms())))
}

/// A body as it is, for no body is unpacked here, nor by most servers.
pub(super) async fn read(
    headers: &HeaderMap,
    body: hyper::body::Incoming,
    limit: u64,
) -> Result<Bytes, Failure> {
    understood(headers)?;
    body::read(body, limit).await
}

/// What the caller wishes, by header. A value that cannot be read is an error: silence would be a lie.
fn wishes(headers: &HeaderMap) -> Result<Wishes, Failure> {
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or("?").trim());
    let millis = |name: &str| match text(name).map(|it| (it, it.parse::<u64>())) {
        None => Ok(None),
        Some((_, Ok(ms))) => Ok(Some(Duration::from_millis(ms))),
        Some((value, Err(_))) => {
            Err(Failure::BadRequest(format!("the header `{name}` takes milliseconds, not `{value}`")))
        }
    };
    let fallback = match text("x-lovable-fallback").map(|it| (it, it.parse::<Fallback>())) {
        None => None,
        Some((_, Ok(fallback))) => Some(fallback),
        Some((value, Err(_))) => {
            return Err(Failure::BadRequest(format!(
                "the header `x-lovable-fallback` takes none, same, local or cloud, not `{value}`"
            )));
        }
    };
    let priority = match text("x-lovable-priority") {
        None | Some("interactive") => Priority::Interactive,
        Some("batch") => Priority::Batch,
        Some(value) => {
            return Err(Failure::BadRequest(format!(
                "the header `x-lovable-priority` takes interactive or batch, not `{value}`"
            )));
        }
    };
    Ok(Wishes {
        fallback,
        priority,
        session: text("x-lovable-session").filter(|it| !it.is_empty()).map(str::to_owned),
        timeout: millis("x-lovable-timeout-ms")?,
        open_after: millis("x-lovable-open-after-ms")?,
    })
}

fn understood(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get(CONTENT_ENCODING).map(|it| it.to_str().unwrap_or("?").trim()) {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(Failure::BadRequest(format!(
            "a body with `content-encoding: {other}` is not understood; send it as it is"
        ))),
    }
}

fn pass(headers: &HeaderMap, request_id: &str, instance: &str) -> HeaderMap {
    let mut pass = HeaderMap::with_capacity(8);
    pass.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for name in PASSED_ON {
        // A copy: the value itself would hold the buffer that the head was read into, 8 KiB, for
        // as long as the request takes.
        if let Some(value) = headers.get(name).and_then(|it| HeaderValue::from_bytes(it.as_bytes()).ok()) {
            pass.insert(HeaderName::from_static(name), value);
        }
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        pass.insert(HeaderName::from_static("x-request-id"), value);
    }
    let so_far = headers.get_all(VIA).iter().filter_map(|it| it.to_str().ok());
    let via = so_far.chain([instance]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&via) {
        pass.insert(HeaderName::from_static(VIA), value);
    }
    pass
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn wishes_that_cannot_be_read_are_refused_by_name() {
        let error = wishes(&headers(&[("x-lovable-timeout-ms", "soon")])).unwrap_err();
        assert_eq!(error.message(), "the header `x-lovable-timeout-ms` takes milliseconds, not `soon`");
        let error = wishes(&headers(&[("x-lovable-fallback", "always")])).unwrap_err();
        assert!(error.message().contains("none, same, local or cloud"), "{}", error.message());
        let error = wishes(&headers(&[("x-lovable-priority", "high")])).unwrap_err();
        assert_eq!(error.message(), "the header `x-lovable-priority` takes interactive or batch, not `high`");
        let good =
            wishes(&headers(&[("x-lovable-timeout-ms", "1500"), ("x-lovable-fallback", "none")])).unwrap();
        assert_eq!((good.timeout, good.fallback), (Some(Duration::from_millis(1500)), Some(Fallback::None)));
    }

    #[test]
    fn nothing_of_the_callers_credentials_goes_on() {
        let theirs = headers(&[
            ("authorization", "Bearer secret"),
            ("cookie", "a=b"),
            ("x-conversation-id", "c"),
            ("traceparent", "00-1-2-3"),
            ("x-lovable-via", "abc"),
        ]);
        let ours = pass(&theirs, "r1", "me");
        let mut names: Vec<_> = ours.keys().map(|it| it.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "traceparent", "x-lovable-via", "x-request-id"]);
        assert_eq!(ours["x-lovable-via"], "abc, me");
    }
}
