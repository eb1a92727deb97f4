//! Takes a request apart: what it means, whatever language it is then said in.

use serde_json::value::RawValue;

use super::{
    object::{Object, list, object, text, truth, value, whole},
    option::{self, Sort},
    request::limit,
    turn::{self, Calls},
};
use crate::{
    dialect::{
        Door,
        json::{self, bad},
    },
    fault::Failure,
    generate::{Chat, Complete, Effort, Embed, Extras, Format, Meaning, Part, Role, Sampling, Turn},
};

/// Fields that change no answer where nothing is cut or shifted out of a context, which
/// is so at every server that this is said to.
const HINTS: [&str; 3] = ["truncate", "shift", "stream"];

/// Takes the whole request apart.
pub(super) fn understand(door: Door, body: &[u8]) -> Result<Meaning, Failure> {
    let mut body = Object::read(body)?;
    // Who answers has been decided.
    body.take("model");
    body.take("name");
    match door {
        Door::OllamaGenerate => generate(body),
        Door::OllamaEmbed | Door::OllamaEmbeddings => embed(door, body).map(Meaning::Embed),
        _ => chat(body).map(Meaning::Chat),
    }
}

fn chat(mut body: Object<'_>) -> Result<Chat, Failure> {
    let mut chat = Chat::default();
    let messages = list("messages", body.take("messages"))?;
    let mut calls = Calls::default();
    for (at, message) in messages.into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let message = object(&path, message)?;
        chat.turns.push(turn::turn(&path, message, &mut calls, &mut chat.extras)?);
    }
    for (at, tool) in list("tools", body.take("tools"))?.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        chat.tools.push(turn::tool(&path, object(&path, tool)?, &mut chat.extras)?);
    }
    chat.effort = effort(body.take("think"))?;
    finish_chat(body, chat)
}

/// What chat and the chat of one turn have in common.
fn finish_chat(mut body: Object<'_>, mut chat: Chat) -> Result<Chat, Failure> {
    chat.format = format(body.take("format"))?;
    chat.logprobs = logprobs(&mut body)?;
    chat.keep_alive = body.take("keep_alive").map(value);
    (chat.sampling, chat.context) = options(&mut body, &mut chat.extras)?;
    body.rest("", &HINTS, &mut chat.extras);
    Ok(chat)
}

fn generate(mut body: Object<'_>) -> Result<Meaning, Failure> {
    let raw = truth("raw", body.take("raw"))?.unwrap_or(false);
    let prompt = text("prompt", body.take("prompt"))?.unwrap_or_default();
    let suffix = text("suffix", body.take("suffix"))?.filter(|it| !it.is_empty());
    if !raw && suffix.is_none() {
        let mut turns = Vec::new();
        if let Some(system) = text("system", body.take("system"))?.filter(|it| !it.is_empty()) {
            turns.push(Turn::text(Role::System, system));
        }
        let mut parts = turn::images("images", body.take("images"))?;
        if !prompt.is_empty() || parts.is_empty() {
            parts.push(Part::Text(prompt));
        }
        turns.push(Turn { role: Role::User, name: None, parts });
        let effort = effort(body.take("think"))?;
        return finish_chat(body, Chat { turns, effort, ..Chat::default() }).map(Meaning::Chat);
    }
    let mut complete = Complete { prompt, suffix, ..Complete::default() };
    complete.format = format(body.take("format"))?;
    complete.logprobs = logprobs(&mut body)?;
    complete.keep_alive = body.take("keep_alive").map(value);
    (complete.sampling, complete.context) = options(&mut body, &mut complete.extras)?;
    // What is left of `system`, `template`, `images` and `think` has no place beside a raw text.
    body.rest("", &HINTS, &mut complete.extras);
    Ok(Meaning::Complete(complete))
}

fn embed(door: Door, mut body: Object<'_>) -> Result<Embed, Failure> {
    let mut embed = Embed::default();
    if door == Door::OllamaEmbeddings {
        embed.inputs.extend(text("prompt", body.take("prompt"))?);
    } else {
        match body.take("input") {
            Some(one) if one.get().starts_with('"') => embed.inputs.extend(json::text(one).map(Into::into)),
            many => {
                for (at, one) in list("input", many)?.into_iter().enumerate() {
                    let one = json::text(one).ok_or_else(|| bad(format!("`input[{at}]` must be a text")))?;
                    embed.inputs.push(one.into_owned());
                }
            }
        }
        embed.dimensions = whole("dimensions", body.take("dimensions"))?.filter(|it| *it > 0);
        embed.truncate = truth("truncate", body.take("truncate"))?;
    }
    embed.keep_alive = body.take("keep_alive").map(value);
    // How tokens are picked changes no vector.
    (_, embed.context) = options(&mut body, &mut embed.extras)?;
    body.rest("", &["stream"], &mut embed.extras);
    Ok(embed)
}

fn effort(think: Option<&RawValue>) -> Result<Option<Effort>, Failure> {
    let wrong = || bad("`think` must be true, false or a level: low, medium, high, max");
    Ok(match think.map(RawValue::get) {
        None => None,
        Some("true") => Some(Effort::On),
        Some("false") => Some(Effort::Off),
        Some(_) => match think.and_then(json::text).ok_or_else(wrong)?.as_ref() {
            "" => None,
            level @ ("minimal" | "low" | "medium" | "high" | "xhigh" | "max") => {
                Some(Effort::Level(level.to_owned()))
            }
            _ => return Err(wrong()),
        },
    })
}

fn format(given: Option<&RawValue>) -> Result<Format, Failure> {
    Ok(match given.map(RawValue::get) {
        None | Some("\"\"") => Format::Text,
        Some("\"json\"") => Format::Json,
        Some(schema) if schema.starts_with('{') => {
            Format::Schema { name: None, schema: given.map(value).unwrap_or_default(), strict: None }
        }
        Some(_) => return Err(bad("`format` must be \"json\" or a JSON schema")),
    })
}

fn logprobs(body: &mut Object<'_>) -> Result<Option<u32>, Failure> {
    let wanted = truth("logprobs", body.take("logprobs"))?.unwrap_or(false);
    let top = whole("top_logprobs", body.take("top_logprobs"))?.unwrap_or(0);
    // Far more than any server gives.
    let top = u32::try_from(top).unwrap_or(u32::MAX);
    Ok((wanted || top > 0).then_some(top))
}

/// How tokens are picked, and the context; what has no name here goes to the extras.
fn options(body: &mut Object<'_>, extras: &mut Extras) -> Result<(Sampling, Option<u64>), Failure> {
    let mut sampling = Sampling::default();
    let mut context = None;
    let Some(options) = body.take("options") else { return Ok((sampling, context)) };
    for (name, raw) in object("options", options)?.0 {
        if let Some(wrong) = option::wrong(&name, raw.get()) {
            return Err(bad(format!("`options.{name}` {wrong}")));
        }
        let number = || raw.get().parse::<f64>().ok().filter(|it| it.is_finite());
        #[expect(clippy::cast_possible_truncation, reason = "as Ollama does it")]
        let integer = || number().map(|it| it as i64);
        match option::sort(&name) {
            Some(Sort::Machine) => {}
            Some(Sort::Own(neutral)) if number().is_none_or(|it| it == neutral) => {}
            Some(Sort::Own(_)) => extras.push((format!("options.{name}"), value(raw))),
            Some(Sort::Named) => match name.as_str() {
                "num_predict" => sampling.max_tokens = limit(raw.get()),
                "num_ctx" => context = limit(raw.get()),
                "temperature" => sampling.temperature = number(),
                "top_p" => sampling.top_p = number(),
                "top_k" => sampling.top_k = integer(),
                "min_p" => sampling.min_p = number(),
                "frequency_penalty" => sampling.frequency_penalty = number(),
                "presence_penalty" => sampling.presence_penalty = number(),
                "repeat_penalty" => sampling.repeat_penalty = number(),
                // -1 is Ollama's word for chance.
                "seed" => sampling.seed = integer().filter(|it| *it >= 0),
                _ => sampling.stop = serde_json::from_str(raw.get()).unwrap_or_default(),
            },
            None if json::is_nothing(raw) => {}
            None => extras.push((format!("options.{name}"), value(raw))),
        }
    }
    Ok((sampling, context))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chatted(body: &serde_json::Value) -> Chat {
        match understand(Door::OllamaChat, body.to_string().as_bytes()) {
            Ok(Meaning::Chat(chat)) => chat,
            other => panic!("{other:?}"),
        }
    }

    fn refused(door: Door, body: &serde_json::Value, expected: &str) {
        let failure = understand(door, body.to_string().as_bytes()).unwrap_err();
        assert_eq!(failure.message(), expected, "for {body}");
    }

    fn with(name: &str, value: serde_json::Value) -> serde_json::Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        body
    }

    #[test]
    fn options_have_their_place_or_are_refused_by_name_later() {
        let chat = chatted(&with(
            "options",
            json!({
                "num_predict": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 3,
                "stop": ["a", "b"], "frequency_penalty": 0.25, "presence_penalty": -0.5, "repeat_penalty": 1.1,
                "num_ctx": 8192, "mirostat": 2, "repeat_last_n": 64, "typical_p": 1.0, "num_thread": 4,
                "use_mmap": true, "unheard_of": 5, "neutral": false, "top": null
            }),
        ));
        let sampling = Sampling {
            max_tokens: Some(7),
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            min_p: Some(0.1),
            seed: Some(3),
            stop: vec!["a".to_owned(), "b".to_owned()],
            frequency_penalty: Some(0.25),
            presence_penalty: Some(-0.5),
            repeat_penalty: Some(1.1),
            logit_bias: None,
        };
        assert_eq!((chat.sampling, chat.context), (sampling, Some(8192)));
        let extras = [("options.mirostat".to_owned(), json!(2)), ("options.unheard_of".to_owned(), json!(5))];
        assert_eq!(chat.extras, extras);
    }

    #[test]
    fn no_limit_is_no_limit() {
        for none in [-1, -2, 0] {
            let chat = chatted(&with("options", json!({"num_predict": none, "seed": -1})));
            assert_eq!(chat.sampling, Sampling::default(), "for {none}");
        }
    }

    #[test]
    fn thinking_is_a_truth_or_a_level() {
        let check = |think: serde_json::Value, effort: Option<Effort>| {
            assert_eq!(chatted(&with("think", think)).effort, effort);
        };
        check(json!(true), Some(Effort::On));
        check(json!(false), Some(Effort::Off));
        check(json!("high"), Some(Effort::Level("high".to_owned())));
        check(json!(null), None);
        let text = "`think` must be true, false or a level: low, medium, high, max";
        refused(Door::OllamaChat, &with("think", json!("hard")), text);
        refused(Door::OllamaChat, &with("think", json!(5)), text);
    }

    #[test]
    fn the_form_of_an_answer_is_json_or_a_schema() {
        assert_eq!(chatted(&with("format", json!(""))).format, Format::Text);
        assert_eq!(chatted(&with("format", json!("json"))).format, Format::Json);
        let schema = json!({"type": "object"});
        let format = Format::Schema { name: None, schema: schema.clone(), strict: None };
        assert_eq!(chatted(&with("format", schema)).format, format);
    }

    #[test]
    fn hints_are_dropped_and_the_unknown_is_kept_by_its_name() {
        let mut body = with("truncate", json!(true));
        body["shift"] = json!(true);
        body["Stream"] = json!(false);
        body["keep_alive"] = json!("5m");
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(2);
        body["_debug_render_only"] = json!(true);
        body["empty"] = json!([]);
        body["messages"][0]["name"] = json!("Ann");
        body["messages"][0]["weight"] = json!(1);
        let chat = chatted(&body);
        let extras =
            [("messages[0].weight".to_owned(), json!(1)), ("_debug_render_only".to_owned(), json!(true))];
        assert_eq!(chat.extras, extras);
        assert_eq!((chat.keep_alive, chat.logprobs), (Some(json!("5m")), Some(2)));
    }

    #[test]
    fn generate_is_a_conversation_of_one_turn() {
        let body = json!({"model": "m", "system": "Be brief.", "prompt": "What?", "images": ["iVBORw0KGgo="],
            "template": "{{ .Prompt }}", "context": [1, 2], "raw": false});
        let Ok(Meaning::Chat(chat)) = understand(Door::OllamaGenerate, body.to_string().as_bytes()) else {
            panic!("no chat")
        };
        assert_eq!(chat.turns[0], Turn::text(Role::System, "Be brief."));
        let [Part::Image(image), Part::Text(text)] = &chat.turns[1].parts[..] else { panic!("{chat:?}") };
        let source = crate::generate::ImageSource::Data {
            media_type: "image/png".to_owned(),
            base64: "iVBORw0KGgo=".to_owned(),
        };
        assert_eq!((&image.source, text.as_str()), (&source, "What?"));
        let names: Vec<&str> = chat.extras.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["template", "context"]);
    }

    #[test]
    fn generate_with_raw_or_suffix_is_a_text_to_go_on() {
        let complete =
            |body: serde_json::Value| match understand(Door::OllamaGenerate, body.to_string().as_bytes()) {
                Ok(Meaning::Complete(complete)) => complete,
                other => panic!("{other:?}"),
            };
        let raw = complete(json!({"model": "m", "prompt": "a", "raw": true, "system": "x", "think": false}));
        assert_eq!((raw.prompt.as_str(), raw.suffix), ("a", None));
        assert_eq!(raw.extras, [("system".to_owned(), json!("x"))], "which Ollama refuses, too");
        let middle = complete(json!({"model": "m", "suffix": "}", "options": {"num_predict": 9}}));
        assert_eq!((middle.prompt.as_str(), middle.suffix.as_deref()), ("", Some("}")));
        assert_eq!(middle.sampling.max_tokens, Some(9));
    }

    #[test]
    fn texts_for_vectors_come_one_or_many() {
        let embed = |door: Door, body: serde_json::Value| match understand(door, body.to_string().as_bytes())
        {
            Ok(Meaning::Embed(embed)) => embed,
            other => panic!("{other:?}"),
        };
        let one =
            embed(Door::OllamaEmbed, json!({"model": "m", "input": "a", "truncate": true, "dimensions": 64}));
        assert_eq!((one.inputs, one.truncate, one.dimensions), (vec!["a".to_owned()], Some(true), Some(64)));
        let two = embed(
            Door::OllamaEmbed,
            json!({"model": "m", "input": ["a", "b"], "options": {"num_ctx": 512, "temperature": 0}}),
        );
        assert_eq!((two.inputs.len(), two.truncate, two.context), (2, None, Some(512)));
        assert_eq!(two.extras, []);
        let older = embed(Door::OllamaEmbeddings, json!({"model": "m", "prompt": "a", "keep_alive": 5}));
        assert_eq!((older.inputs, older.keep_alive), (vec!["a".to_owned()], Some(json!(5))));
        refused(Door::OllamaEmbed, &json!({"model": "m", "input": ["a", 5]}), "`input[1]` must be a text");
        let body = json!({"model": "m", "input": "a", "dimensions": "many"});
        refused(Door::OllamaEmbed, &body, "`dimensions` must be a whole number");
    }
}
