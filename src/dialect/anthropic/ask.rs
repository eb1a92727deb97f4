//! Says a request in this language, for a server that speaks it.
//!
//! What the language has no word for is refused by its name. What changes no
//! answer is left out: how long a model stays loaded and how large a context is
//! loaded (a server whose context is too small says so), how closely to look at
//! an image, and the label of a schema.

use serde_json::{Map, Value, json};

use super::conversation::conversation;
use crate::{
    dialect::{Asked, Lack, To},
    generate::{Chat, Effort, Extras, Format, Meaning, Sampling, Tool, ToolChoice},
};

/// The limit where the caller gave none: this language must have one. Every model that
/// speaks it takes this much, older ones no more; an answer that is cut by it says so
/// in its reason.
const MAX_TOKENS: u64 = 4096;

/// The least that may be thought.
const LEAST_BUDGET: u64 = 1024;

/// Says it, or says what cannot be said.
pub(super) fn ask(meaning: &Meaning, to: &To<'_>) -> Result<Asked, Lack> {
    match meaning {
        Meaning::Chat(chat) => self::chat(chat, to),
        Meaning::Complete(_) => Err(lack("a text to continue")),
        Meaning::Embed(_) => Err(Lack("Anthropic's language has no embeddings".to_owned())),
    }
}

fn chat(chat: &Chat, to: &To<'_>) -> Result<Asked, Lack> {
    refuse_what_has_no_word(chat)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), to.model.into());
    let (system, messages) = conversation(&chat.turns)?;
    if !system.is_empty() {
        body.insert("system".to_owned(), system.into());
    }
    body.insert("messages".to_owned(), messages.into());
    tools(chat, &mut body);
    let mut config = Map::new();
    if let Format::Schema { schema, .. } = &chat.format {
        config.insert("format".to_owned(), json!({"type": "json_schema", "schema": schema}));
    }
    let mut thinking = 0;
    match &chat.effort {
        None => {}
        Some(Effort::Off) => {
            body.insert("thinking".to_owned(), json!({"type": "disabled"}));
        }
        Some(Effort::On) => {
            body.insert("thinking".to_owned(), json!({"type": "adaptive"}));
        }
        Some(Effort::Level(level)) => {
            body.insert("thinking".to_owned(), json!({"type": "adaptive"}));
            // The lowest there is here.
            let level = if level == "minimal" { "low" } else { level };
            config.insert("effort".to_owned(), level.into());
        }
        Some(Effort::Budget(budget)) => {
            thinking = (*budget).max(LEAST_BUDGET);
            body.insert("thinking".to_owned(), json!({"type": "enabled", "budget_tokens": thinking}));
        }
    }
    if !config.is_empty() {
        body.insert("output_config".to_owned(), config.into());
    }
    // Thinking is part of the limit.
    let limit = chat.sampling.max_tokens.unwrap_or_else(|| MAX_TOKENS.saturating_add(thinking));
    body.insert("max_tokens".to_owned(), limit.into());
    sampling(&chat.sampling, &mut body);
    if to.stream {
        body.insert("stream".to_owned(), true.into());
    }
    Ok(Asked { body: Value::Object(body).to_string().into(), forced: None })
}

/// Names the first thing that would be lost.
fn refuse_what_has_no_word(chat: &Chat) -> Result<(), Lack> {
    let sampling = &chat.sampling;
    let differs = |it: Option<f64>, neutral: f64| it.is_some_and(|it| it != neutral);
    let has = [
        ("seed", sampling.seed.is_some()),
        ("min_p", differs(sampling.min_p, 0.0)),
        ("frequency_penalty", differs(sampling.frequency_penalty, 0.0)),
        ("presence_penalty", differs(sampling.presence_penalty, 0.0)),
        ("repeat_penalty", differs(sampling.repeat_penalty, 1.0)),
        ("logit_bias", sampling.logit_bias.as_ref().is_some_and(|it| !is_nothing(it))),
        ("logprobs", chat.logprobs.is_some()),
        ("n", chat.choices.is_some_and(|it| it > 1)),
        ("name", chat.turns.iter().any(|it| it.name.is_some())),
    ];
    if let Some((name, _)) = has.into_iter().find(|(_, has)| *has) {
        return Err(lack(&format!("`{name}`")));
    }
    if sampling.temperature.is_some_and(|it| !(0.0..=1.0).contains(&it)) {
        return Err(lack("`temperature` above 1"));
    }
    if sampling.max_tokens == Some(0) {
        return Err(lack("`max_tokens` of 0"));
    }
    if chat.format == Format::Json {
        return Err(lack("JSON without a schema"));
    }
    extras(&chat.extras)
}

fn extras(extras: &Extras) -> Result<(), Lack> {
    extras.first().map_or(Ok(()), |(name, _)| Err(lack(&format!("`{name}`"))))
}

pub(super) fn lack(what: &str) -> Lack {
    Lack(format!("{what} cannot be said to Anthropic's messages"))
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

fn sampling(sampling: &Sampling, body: &mut Map<String, Value>) {
    if let Some(temperature) = sampling.temperature {
        body.insert("temperature".to_owned(), temperature.into());
    }
    if let Some(top_p) = sampling.top_p {
        body.insert("top_p".to_owned(), top_p.into());
    }
    // Zero and less are how others say that there is no limit.
    if let Some(top_k) = sampling.top_k.filter(|it| *it > 0) {
        body.insert("top_k".to_owned(), top_k.into());
    }
    if !sampling.stop.is_empty() {
        body.insert("stop_sequences".to_owned(), sampling.stop.clone().into());
    }
}

fn tools(chat: &Chat, body: &mut Map<String, Value>) {
    if !chat.tools.is_empty() {
        let tools: Vec<Value> = chat.tools.iter().map(tool).collect();
        body.insert("tools".to_owned(), tools.into());
    }
    let one_at_a_time = chat.parallel_calls == Some(false) && !chat.tools.is_empty();
    let mut choice = match &chat.tool_choice {
        ToolChoice::Auto if one_at_a_time => json!({"type": "auto"}),
        ToolChoice::Auto => return,
        ToolChoice::None if chat.tools.is_empty() => return,
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if one_at_a_time && chat.tool_choice != ToolChoice::None {
        choice["disable_parallel_tool_use"] = true.into();
    }
    body.insert("tool_choice".to_owned(), choice);
}

fn tool(tool: &Tool) -> Value {
    let schema = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object"}));
    let mut said = json!({"name": tool.name, "input_schema": schema});
    if let Some(description) = &tool.description {
        said["description"] = description.as_str().into();
    }
    if tool.strict == Some(true) {
        said["strict"] = true.into();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Complete, Embed, Part, Role, Turn};

    const TO: To<'_> = To { model: "m", stream: false, ask_usage: true, max_tokens: true, sold: None };

    fn say(chat: &Chat) -> Result<Value, String> {
        let asked = ask(&Meaning::Chat(chat.clone()), &TO).map_err(|it| it.0)?;
        assert_eq!(asked.forced, None);
        Ok(serde_json::from_slice(&asked.body).unwrap())
    }

    fn hi() -> Chat {
        Chat { turns: vec![Turn::text(Role::User, "hi")], ..Chat::default() }
    }

    #[test]
    fn the_least_is_a_model_a_message_and_a_limit() {
        let least =
            json!({"model": "m", "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(say(&hi()).unwrap(), least);
        let asked = ask(&Meaning::Chat(hi()), &To { stream: true, ..TO }).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap()["stream"], true);
    }

    #[test]
    fn tools_and_choices_have_their_words() {
        let tool = Tool {
            name: "f".to_owned(),
            description: Some("d".to_owned()),
            parameters: Some(json!({"type": "object", "properties": {}})),
            strict: Some(true),
        };
        let bare = Tool { name: "g".to_owned(), description: None, parameters: None, strict: Some(false) };
        let chat = |choice, parallel| Chat {
            tools: vec![tool.clone(), bare.clone()],
            tool_choice: choice,
            parallel_calls: parallel,
            ..hi()
        };
        let expected = json!([
            {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": true},
            {"name": "g", "input_schema": {"type": "object"}},
        ]);
        assert_eq!(say(&chat(ToolChoice::Auto, None)).unwrap()["tools"], expected);
        let choice = |choice, parallel| say(&chat(choice, parallel)).unwrap()["tool_choice"].clone();
        assert_eq!(choice(ToolChoice::Auto, Some(true)), Value::Null);
        assert_eq!(
            choice(ToolChoice::Auto, Some(false)),
            json!({"type": "auto", "disable_parallel_tool_use": true})
        );
        assert_eq!(choice(ToolChoice::None, Some(false)), json!({"type": "none"}));
        assert_eq!(choice(ToolChoice::Required, None), json!({"type": "any"}));
        assert_eq!(
            choice(ToolChoice::Named("f".to_owned()), Some(false)),
            json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true})
        );
        let none = Chat { tool_choice: ToolChoice::None, parallel_calls: Some(false), ..hi() };
        assert_eq!(say(&none).unwrap().get("tool_choice"), None);
    }

    #[test]
    fn sampling_form_and_thinking_have_their_words() {
        let sampling = Sampling {
            max_tokens: Some(50),
            temperature: Some(1.0),
            top_p: Some(0.9),
            top_k: Some(5),
            stop: vec!["x".to_owned()],
            frequency_penalty: Some(0.0),
            repeat_penalty: Some(1.0),
            logit_bias: Some(json!({})),
            ..Sampling::default()
        };
        let schema = json!({"type": "object"});
        let format =
            Format::Schema { name: Some("n".to_owned()), schema: schema.clone(), strict: Some(true) };
        let effort = Some(Effort::Level("minimal".to_owned()));
        let body = say(&Chat { sampling, format, effort, choices: Some(1), ..hi() }).unwrap();
        let expected = json!({
            "model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50,
            "temperature": 1.0, "top_p": 0.9, "top_k": 5, "stop_sequences": ["x"], "thinking": {"type": "adaptive"},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        });
        assert_eq!(body, expected);
        let thinking = |effort| {
            let body = say(&Chat { effort: Some(effort), ..hi() }).unwrap();
            (body["thinking"].clone(), body["max_tokens"].clone())
        };
        assert_eq!(thinking(Effort::Off).0, json!({"type": "disabled"}));
        assert_eq!(thinking(Effort::On).0, json!({"type": "adaptive"}));
        let budget = (json!({"type": "enabled", "budget_tokens": 2000}), json!(6096));
        assert_eq!(thinking(Effort::Budget(2000)), budget, "there is room for the answer, too");
    }

    #[test]
    fn what_cannot_be_said_is_named() {
        let check = |chat: Chat, name: &str| {
            let told = say(&chat).unwrap_err();
            assert!(told.contains(name) && told.contains("cannot be said"), "{told}");
        };
        let with = |sampling| Chat { sampling, ..hi() };
        check(with(Sampling { seed: Some(1), ..Sampling::default() }), "`seed`");
        check(with(Sampling { min_p: Some(0.1), ..Sampling::default() }), "`min_p`");
        check(with(Sampling { presence_penalty: Some(0.1), ..Sampling::default() }), "`presence_penalty`");
        check(with(Sampling { temperature: Some(1.5), ..Sampling::default() }), "`temperature` above 1");
        check(with(Sampling { logit_bias: Some(json!({"5": 1})), ..Sampling::default() }), "`logit_bias`");
        check(with(Sampling { max_tokens: Some(0), ..Sampling::default() }), "`max_tokens` of 0");
        check(Chat { logprobs: Some(0), ..hi() }, "`logprobs`");
        check(Chat { choices: Some(2), ..hi() }, "`n`");
        check(Chat { format: Format::Json, ..hi() }, "JSON without a schema");
        check(Chat { extras: vec![("options.mirostat".to_owned(), json!(1))], ..hi() }, "`options.mirostat`");
        let named = Turn { name: Some("x".to_owned()), ..Turn::text(Role::User, "hi") };
        check(Chat { turns: vec![named], ..hi() }, "`name`");
        assert!(ask(&Meaning::Complete(Complete::default()), &TO).is_err());
        assert!(ask(&Meaning::Embed(Embed::default()), &TO).is_err());
        let hints = Chat { keep_alive: Some(json!(-1)), context: Some(4096), ..hi() };
        assert!(say(&hints).is_ok());
    }

    #[test]
    fn what_was_said_in_this_language_means_the_same_when_it_is_said_again() {
        let body = include_str!("claude_code.json");
        let first = super::super::understand::understand(body.as_bytes()).unwrap();
        let again = ask(&Meaning::Chat(first.clone()), &TO).unwrap();
        let mut second = super::super::understand::understand(&again.body).unwrap();
        // Proofs without a thought are for nobody but who gave them; and JSON has more than
        // one way to write a number.
        let strip = |chat: &mut Chat| {
            for turn in &mut chat.turns {
                turn.parts.retain(|it| !matches!(it, Part::Thinking { text, .. } if text.is_empty()));
                for part in &mut turn.parts {
                    if let Part::Call(call) = part {
                        let input: Value = serde_json::from_str(&call.arguments).unwrap();
                        call.arguments = input.to_string();
                    }
                }
            }
        };
        let mut first = first;
        strip(&mut first);
        strip(&mut second);
        assert_eq!(second, first);
    }
}
