//! The kinds that can be imitated: what each answers to the questions by which
//! it is known, how it lists its models, and how it refuses.
//!
//! Each has the doors that its kind has: all but the bare OpenAI one speak the languages of
//! OpenAI's responses and of Anthropic too, and Ollama its own.

use serde_json::{Value, json};

use super::{
    ask::{Gate, Tongue},
    begun,
    http::Request,
    listing::{llama_props, llama_slots, lm_studio_v0, lm_studio_v1, show, vllm_metrics},
    script::{Offer, Script},
};

/// A kind of server to imitate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// Ollama 0.24.
    Ollama,
    /// vLLM 0.32.
    Vllm,
    /// LM Studio 0.4.
    LmStudio,
    /// llama.cpp's server.
    LlamaCpp,
    /// Something that lists models the OpenAI way and says no more.
    OpenAi,
}

/// A response that is there at once.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: String,
    /// Header lines of its own, each ended.
    pub(super) more: String,
}

impl Reply {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, content_type: Some("application/json"), body: body.to_string(), more: String::new() }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: Some("text/plain; charset=utf-8"),
            body: body.to_owned(),
            more: String::new(),
        }
    }

    fn empty(status: u16) -> Self {
        Self { status, content_type: None, body: String::new(), more: String::new() }
    }
}

/// What a server works on while it is asked something else.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    pub(super) requests: u32,
    /// How far it has come with all of them: it stands still where an answer hangs.
    pub(super) progress: u64,
}

/// Why a request is turned down, before a shape gives it words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(String),
    Missing(&'static str),
    NoSuchModel(String),
    TooLong {
        tokens: usize,
        context: u64,
    },
    NeedsKey,
    Loading,
    CannotEmbed,
    /// The model lacks an ability: `tools`, `thinking`, `insert`, `vision`.
    Lacks {
        model: String,
        what: &'static str,
    },
    /// A scripted status, with words that quote the prompt.
    Status(u16, String),
}

impl Shape {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Ollama, Self::Vllm, Self::LmStudio, Self::LlamaCpp, Self::OpenAi];

    /// The kind that it should be taken for.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::Vllm => "vllm",
            Self::LmStudio => "lmstudio",
            Self::LlamaCpp => "llamacpp",
            Self::OpenAi => "openai-compatible",
        }
    }

    /// Header lines that are in every response.
    pub(super) fn headers(self) -> &'static str {
        match self {
            Self::Ollama | Self::OpenAi => "x-lovable-simulated: 1\r\n",
            Self::Vllm => "server: uvicorn\r\nx-lovable-simulated: 1\r\n",
            Self::LmStudio => "X-Powered-By: Express\r\nx-lovable-simulated: 1\r\n",
            Self::LlamaCpp => {
                "Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nx-lovable-simulated: 1\r\n"
            }
        }
    }

    /// Whether the head of a stream is held back until the first word is there.
    pub(super) fn head_waits(self) -> bool {
        matches!(self, Self::Ollama | Self::LlamaCpp)
    }

    /// Whether it stops working when a client of a plain request leaves:
    /// llama.cpp computes a plain answer to its end.
    pub(super) fn notices_leaving(self, stream: bool) -> bool {
        stream || self != Self::LlamaCpp
    }

    /// Whether it reads a prompt to its end although the client has left.
    pub(super) fn reads_to_the_end(self) -> bool {
        matches!(self, Self::Ollama | Self::LmStudio)
    }

    /// Whether a connection is closed after a refusal.
    pub(super) fn closes_after(self, status: u16) -> bool {
        self == Self::LlamaCpp && status >= 400
    }

    /// A model's name as this shape lists it.
    pub(super) fn name(self, offer: &Offer) -> String {
        match self {
            Self::Ollama if !offer.name.contains(':') => format!("{}:latest", offer.name),
            _ => offer.name.clone(),
        }
    }

    /// The model that `asked` gets here, and how the answer names it.
    pub(super) fn model<'a>(
        self,
        script: &'a Script,
        asked: Option<&str>,
    ) -> Result<(&'a Offer, String), Refusal> {
        let found = script
            .models
            .iter()
            .find(|offer| asked.is_some_and(|asked| offer.name == asked || self.name(offer) == asked));
        match (self, found, asked) {
            // One model answers whatever was asked for, and says its own name.
            (Self::LlamaCpp, _, _) if !script.models.is_empty() => {
                let offer = found.unwrap_or(&script.models[0]);
                Ok((offer, offer.name.clone()))
            }
            (Self::LmStudio, None, _) if script.models.len() == 1 => {
                Ok((&script.models[0], script.models[0].name.clone()))
            }
            (Self::Vllm, None, None) if !script.models.is_empty() => {
                Ok((&script.models[0], script.models[0].name.clone()))
            }
            (_, Some(offer), Some(asked)) => Ok((offer, asked.to_owned())),
            (_, _, Some(asked)) => Err(Refusal::NoSuchModel(asked.to_owned())),
            (_, _, None) => Err(Refusal::Missing("model")),
        }
    }

    /// The answer to anything but a generation.
    pub(super) fn reply(self, request: &Request, script: &Script, busy: Busy) -> Reply {
        let get = matches!(request.method.as_str(), "GET" | "HEAD");
        let path = request.path.as_str();
        if self == Self::LlamaCpp && script.loading {
            return self.refuse(&Refusal::Loading);
        }
        if self == Self::Ollama && !is_own_host(request.header("host").unwrap_or_default()) {
            return Reply::empty(403);
        }
        if !self.admits(request, script) {
            return self.refuse(&Refusal::NeedsKey);
        }
        let one = path.strip_prefix("/v1/models/").and_then(|name| {
            script.models.iter().find(|offer| offer.name == name || self.name(offer) == name)
        });
        match (self, get, path) {
            (_, true, "/v1/models") => Reply::json(200, self.list(script)),
            (Self::Ollama | Self::OpenAi | Self::LmStudio, true, _) if one.is_some() => {
                Reply::json(200, one.map(|offer| self.listed(offer)).unwrap_or_default())
            }
            (Self::Ollama, _, _) => self.ollama(request, script, get),
            (Self::Vllm, true, "/version") => Reply::json(200, json!({"version": "0.32.0"})),
            (Self::Vllm, true, "/health" | "/ping") => Reply::empty(200),
            (Self::Vllm | Self::LlamaCpp, false, "/tokenize" | "/v1/messages/count_tokens") => {
                self.tokens(request)
            }
            (Self::LlamaCpp, false, "/apply-template") => {
                let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let (prompt, begun) = begun::rendered(&body, !body["continue_final_message"].is_null());
                Reply::json(200, json!({"prompt": prompt + &begun}))
            }
            (Self::Vllm, true, "/metrics") => Reply::text(200, &vllm_metrics(script, busy)),
            (Self::Vllm, true, "/load") => Reply::json(200, json!({"server_load": busy.requests})),
            (Self::LmStudio, true, "/api/v1/models") => Reply::json(200, lm_studio_v1(script)),
            (Self::LmStudio, true, "/api/v0/models") => Reply::json(200, lm_studio_v0(script)),
            (Self::LlamaCpp, true, "/health" | "/v1/health") => Reply::json(200, json!({"status": "ok"})),
            (Self::LlamaCpp, true, "/models") => Reply::json(200, self.list(script)),
            (Self::LlamaCpp, true, "/props") => Reply::json(200, llama_props(script)),
            (Self::LlamaCpp, true, "/slots") => Reply::json(200, llama_slots(script, busy)),
            (Self::LlamaCpp, true, "/") if !accepts_gzip(request) => {
                Reply::text(415, "Error: gzip is not supported by this browser")
            }
            _ => self.unknown(request),
        }
    }

    /// Whether the request has the key that its path needs.
    pub(super) fn admits(self, request: &Request, script: &Script) -> bool {
        script.key.is_none() || !self.guards(&request.path) || has_key(request, script)
    }

    fn guards(self, path: &str) -> bool {
        match self {
            Self::Ollama => false,
            Self::Vllm => path.starts_with("/v1"),
            Self::LlamaCpp => !matches!(path, "/health" | "/v1/health" | "/"),
            Self::LmStudio | Self::OpenAi => true,
        }
    }

    /// The answer to a path or method that it does not have.
    pub(super) fn unknown(self, request: &Request) -> Reply {
        let Request { method, path, .. } = request;
        let generates = Gate::at(self, path).is_some();
        match self {
            Self::Ollama if generates => {
                Reply { more: "Allow: POST\r\n".to_owned(), ..Reply::text(405, "405 method not allowed") }
            }
            Self::Ollama => Reply::text(404, "404 page not found"),
            Self::Vllm if generates => Reply {
                more: "allow: POST\r\n".to_owned(),
                ..Reply::json(405, json!({"detail": "Method Not Allowed"}))
            },
            Self::Vllm => Reply::json(404, json!({"detail": "Not Found"})),
            Self::LmStudio => Reply::json(
                200,
                json!({"error": format!("Unexpected endpoint or method. ({method} {path})")}),
            ),
            Self::LlamaCpp => Reply::json(
                404,
                json!({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}),
            ),
            Self::OpenAi => Reply::json(
                404,
                json!({"error": {
                    "message": format!("Invalid URL ({method} {path})"),
                    "type": "invalid_request_error", "param": null, "code": null,
                }}),
            ),
        }
    }

    /// A token is a word of an answer, or four bytes of what is asked.
    fn tokens(self, request: &Request) -> Reply {
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return self.refuse(&Refusal::Malformed("the body is no JSON".to_owned()));
        };
        let text = body["content"].as_str().or(body["prompt"].as_str());
        let count = text.map_or_else(
            || {
                let (prompt, begun) = begun::rendered(&body, !body["continue_final_message"].is_null());
                begun::tokens(&prompt) + begun::tokens(&begun)
            },
            begun::tokens,
        );
        if request.path == "/v1/messages/count_tokens" {
            return Reply::json(200, json!({"input_tokens": count}));
        }
        let tokens: Vec<_> = (0..count).collect();
        match self {
            Self::LlamaCpp => Reply::json(200, json!({"tokens": tokens})),
            Self::Ollama | Self::Vllm | Self::LmStudio | Self::OpenAi => Reply::json(
                200,
                json!({"count": count, "max_model_len": 4096, "tokens": tokens, "token_strs": null}),
            ),
        }
    }

    fn ollama(self, request: &Request, script: &Script, get: bool) -> Reply {
        match (get, request.path.as_str()) {
            (true, "/") => Reply::text(200, "Ollama is running"),
            (true, "/api/version") => Reply::json(200, json!({"version": "0.24.0"})),
            (true, "/api/status") => {
                Reply::json(200, json!({"cloud": {"disabled": true, "source": "config"}}))
            }
            (true, "/api/tags") => {
                let models: Vec<_> = script.models.iter().map(|offer| self.tag(offer)).collect();
                Reply::json(200, json!({"models": models}))
            }
            (true, "/api/ps") => {
                let loaded = script.models.iter().filter(|offer| offer.loaded);
                let models: Vec<_> = loaded
                    .map(|offer| {
                        let mut tag = self.tag(offer);
                        tag["expires_at"] = "2319-03-05T19:42:22.372197682Z".into();
                        tag["size_vram"] = 0.into();
                        tag["context_length"] = offer.context.into();
                        tag
                    })
                    .collect();
                Reply::json(200, json!({"models": models}))
            }
            (false, "/api/show") => {
                let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let name = asked["model"].as_str().or(asked["name"].as_str()).unwrap_or_default();
                match self.model(script, Some(name)) {
                    Ok((offer, _)) => Reply::json(200, show(offer)),
                    Err(_) => Reply::json(404, json!({"error": format!("model '{name}' not found")})),
                }
            }
            _ => self.unknown(request),
        }
    }

    /// A refusal in this shape's words and the caller's language.
    pub(super) fn refuse_in(self, tongue: Tongue, refusal: &Refusal) -> Reply {
        let reply = self.refuse(refusal);
        let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let message = body["error"]["message"].as_str().unwrap_or_default();
        let body = match tongue {
            Tongue::OpenAi | Tongue::Responses => return reply,
            Tongue::Messages => {
                let sort = match reply.status {
                    400 | 422 => "invalid_request_error",
                    401 => "authentication_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    503 => "overloaded_error",
                    _ => "api_error",
                };
                json!({"type": "error", "error": {"type": sort, "message": message}})
            }
            Tongue::Ollama => {
                let message = match refusal {
                    Refusal::TooLong { .. } => "the input length exceeds the context length",
                    Refusal::CannotEmbed => "this model does not support embeddings",
                    _ => message,
                };
                json!({"error": message})
            }
        };
        Reply { body: body.to_string(), ..reply }
    }

    /// A refusal in this shape's words, in the language of OpenAI.
    pub(super) fn refuse(self, refusal: &Refusal) -> Reply {
        let (status, message, word) = match (self, refusal) {
            (_, Refusal::Malformed(text)) => (400, text.clone(), "invalid_request_error"),
            (_, Refusal::Missing(field)) => (400, format!("'{field}' is required"), "invalid_request_error"),
            (Self::Ollama, Refusal::NoSuchModel(name)) => {
                (404, format!("model '{name}' not found"), "not_found_error")
            }
            (Self::LmStudio, Refusal::NoSuchModel(name)) => {
                let message = format!("Model '{name}' not found");
                return Reply::json(
                    404,
                    json!({"error": {
                        "message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found",
                    }}),
                );
            }
            (_, Refusal::NoSuchModel(name)) => {
                (404, format!("The model `{name}` does not exist."), "NotFoundError")
            }
            (Self::LlamaCpp, Refusal::TooLong { tokens, context }) => {
                let message = format!(
                    "request ({tokens} tokens) exceeds the available context size ({context} tokens), try increasing it"
                );
                return Reply::json(
                    400,
                    json!({"error": {
                        "code": 400, "message": message, "type": "exceed_context_size_error",
                        "n_prompt_tokens": tokens, "n_ctx": context,
                    }}),
                );
            }
            (_, Refusal::TooLong { tokens, context }) => (
                400,
                format!(
                    "This model's maximum context length is {context} tokens. However, your prompt contains at least \
                     {tokens} input tokens"
                ),
                "BadRequestError",
            ),
            (Self::Vllm, Refusal::NeedsKey) => return Reply::json(401, json!({"error": "Unauthorized"})),
            (_, Refusal::NeedsKey) => (401, "Invalid API Key".to_owned(), "authentication_error"),
            (_, Refusal::Loading) => (503, "Loading model".to_owned(), "unavailable_error"),
            (Self::Vllm, Refusal::CannotEmbed) => return Reply::json(404, json!({"detail": "Not Found"})),
            (_, Refusal::CannotEmbed) => {
                (501, "This server does not support embeddings".to_owned(), "not_supported_error")
            }
            (Self::Vllm, Refusal::Lacks { what: "tools", .. }) => (
                400,
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"
                    .to_owned(),
                "BadRequestError",
            ),
            (Self::Vllm, Refusal::Lacks { what: "vision", .. }) => {
                (400, "At most 0 image(s) may be provided in one prompt.".to_owned(), "BadRequestError")
            }
            (_, Refusal::Lacks { model, what }) => {
                (400, format!("\"{model}\" does not support {what}"), "invalid_request_error")
            }
            (_, Refusal::Status(status, text)) => (*status, text.clone(), "server_error"),
        };
        let code = match self {
            Self::Vllm | Self::LlamaCpp => json!(status),
            Self::Ollama | Self::LmStudio | Self::OpenAi => Value::Null,
        };
        Reply::json(status, json!({"error": {"message": message, "type": word, "param": null, "code": code}}))
    }
}

fn has_key(request: &Request, script: &Script) -> bool {
    let given = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    given.or(request.header("x-api-key")) == script.key.as_deref()
}

fn accepts_gzip(request: &Request) -> bool {
    request.header("accept-encoding").is_some_and(|value| value.contains("gzip"))
}

/// Ollama's check of the `Host` header: IP literals and names that cannot be foreign.
fn is_own_host(host: &str) -> bool {
    let name = host.strip_prefix('[').map_or_else(
        || host.rsplit_once(':').map_or(host, |(name, _)| name),
        |rest| rest.split(']').next().unwrap_or_default(),
    );
    name.is_empty()
        || name.parse::<std::net::IpAddr>().is_ok()
        || name == "localhost"
        || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
}
