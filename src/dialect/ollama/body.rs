//! A body under construction, in Ollama's words.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::option::{self, Sort};
use crate::{
    dialect::{Lack, To},
    generate::{Extras, Format, ImageSource, Part, Sampling},
};

/// An object under construction; the order of its fields is ours.
#[derive(Default)]
pub(super) struct Body {
    fields: Vec<(String, String)>,
    options: Map<String, Value>,
}

impl Body {
    pub(super) fn bare(to: &To<'_>) -> Self {
        let mut body = Self::default();
        body.set("model", to.model.into());
        body
    }

    pub(super) fn new(to: &To<'_>) -> Self {
        let mut body = Self::bare(to);
        body.set("stream", to.stream.into());
        body.set("truncate", false.into());
        body
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.raw(name, value.to_string());
    }

    /// Sets a field to JSON; a later one takes the place of an earlier one.
    pub(super) fn raw(&mut self, name: &str, json: String) {
        match self.fields.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = json,
            None => self.fields.push((name.to_owned(), json)),
        }
    }

    pub(super) fn images(&mut self, parts: &[Part]) -> Result<(), Lack> {
        let mut images = Vec::new();
        for part in parts {
            let Part::Image(image) = part else { continue };
            match &image.source {
                ImageSource::Data { base64, .. } => images.push(Value::from(base64.as_str())),
                ImageSource::Url(_) => {
                    return Err(lack(
                        "the address of an image cannot be said to Ollama, which takes images in base64 only",
                    ));
                }
            }
        }
        if !images.is_empty() {
            self.set("images", images.into());
        }
        Ok(())
    }

    pub(super) fn format(&mut self, format: &Format) {
        match format {
            Format::Text => {}
            Format::Json => self.set("format", "json".into()),
            // It is always kept to.
            Format::Schema { schema, .. } => self.set("format", schema.clone()),
        }
    }

    pub(super) fn logprobs(&mut self, top: Option<u32>) {
        let Some(top) = top else { return };
        self.set("logprobs", true.into());
        if top > 0 {
            self.set("top_logprobs", top.into());
        }
    }

    fn option(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.options.insert(name.to_owned(), value.into());
        }
    }

    pub(super) fn common(
        &mut self,
        sampling: &Sampling,
        context: Option<u64>,
        keep_alive: Option<&Value>,
        extras: &Extras,
    ) -> Result<(), Lack> {
        if sampling.max_tokens == Some(0) {
            return Err(lack("a limit of 0 tokens cannot be said to Ollama, which takes it for none"));
        }
        if sampling.logit_bias.as_ref().is_some_and(|it| !is_nothing(it)) {
            return Err(lack("`logit_bias` cannot be said to Ollama"));
        }
        self.option("num_ctx", context);
        self.option("num_predict", sampling.max_tokens);
        self.option("temperature", sampling.temperature);
        self.option("top_p", sampling.top_p);
        self.option("top_k", sampling.top_k);
        self.option("min_p", sampling.min_p);
        self.option("seed", sampling.seed);
        self.option("frequency_penalty", sampling.frequency_penalty);
        self.option("presence_penalty", sampling.presence_penalty);
        self.option("repeat_penalty", sampling.repeat_penalty);
        self.option("stop", (!sampling.stop.is_empty()).then(|| sampling.stop.clone()));
        if let Some(keep_alive) = keep_alive {
            self.set("keep_alive", keep_alive.clone());
        }
        for (path, value) in extras {
            self.extra(path, value)?;
        }
        Ok(())
    }

    /// A field without a name of ours: known here by Ollama's name for it, under `options`
    /// or, as callers of llama.cpp and vLLM have it, by itself.
    fn extra(&mut self, path: &str, value: &Value) -> Result<(), Lack> {
        let refused = || lack(format!("`{path}` cannot be said to Ollama"));
        // An object may be empty because its name says it all: `tools[0] (web_search)`.
        if is_nothing(value) && !value.is_object() {
            return Ok(());
        }
        match path {
            "truncate" | "shift" if value.is_boolean() => self.set(path, value.clone()),
            "keep_alive" if value.is_number() || value.is_string() => self.set(path, value.clone()),
            _ => {
                let name = path.strip_prefix("options.").unwrap_or(path);
                let is_known = matches!(option::sort(name), Some(Sort::Own(_) | Sort::Machine))
                    || matches!(name, "num_ctx" | "repeat_penalty" | "min_p" | "top_k" | "num_predict");
                if !is_known || option::wrong(name, &value.to_string()).is_some() {
                    return Err(refused());
                }
                self.option(name, Some(value.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn text(mut self) -> String {
        if !self.options.is_empty() {
            let options = Value::Object(std::mem::take(&mut self.options));
            self.set("options", options);
        }
        let fields: Vec<String> =
            self.fields.iter().map(|(name, json)| format!("{}:{json}", Value::from(name.as_str()))).collect();
        format!("{{{}}}", fields.join(","))
    }

    pub(super) fn end(self) -> Bytes {
        self.text().into()
    }
}

/// Whether a value says nothing: null, false, or an empty text, list or object.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

pub(super) fn lack(text: impl Into<String>) -> Lack {
    Lack(text.into())
}
