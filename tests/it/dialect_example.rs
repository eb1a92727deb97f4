//! A request for each thing that can be asked for, in each language.

use lovable::{dialect::Door, generate::Operation};
use serde_json::{Value, json};

/// An image of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

/// What is wanted at this door.
pub(crate) fn operation(door: Door) -> Operation {
    match door {
        Door::OpenAiChat | Door::Responses | Door::Messages | Door::OllamaChat | Door::OllamaGenerate => {
            Operation::Chat
        }
        Door::OpenAiComplete => Operation::Complete,
        Door::OpenAiEmbed | Door::OllamaEmbed | Door::OllamaEmbeddings => Operation::Embed,
    }
}

/// The least that can be asked.
pub(crate) fn smallest(door: Door) -> Value {
    match door {
        Door::OpenAiChat | Door::OllamaChat => {
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        }
        Door::OpenAiComplete | Door::OllamaGenerate | Door::OllamaEmbeddings => {
            json!({"model": "m", "prompt": "hi"})
        }
        Door::OpenAiEmbed | Door::OllamaEmbed => json!({"model": "m", "input": "hi"}),
        Door::Responses => json!({"model": "m", "input": "hi"}),
        Door::Messages => {
            json!({"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]})
        }
    }
}

/// The smallest request with these fields in it.
fn with(door: Door, fields: Value) -> Value {
    let mut body = smallest(door);
    for (name, value) in fields.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// What can be asked for at this door, by name.
pub(crate) fn examples(door: Door) -> Vec<(&'static str, Value)> {
    let fields = match door {
        Door::OpenAiChat => openai_chat(),
        Door::OpenAiComplete => openai_complete(),
        Door::OpenAiEmbed => openai_embed(),
        Door::Responses => responses(),
        Door::Messages => messages(),
        Door::OllamaChat => ollama_chat(),
        Door::OllamaGenerate => ollama_generate(),
        Door::OllamaEmbed => ollama_embed(),
        Door::OllamaEmbeddings => ollama_embeddings(),
    };
    fields.into_iter().map(|(name, fields)| (name, with(door, fields))).collect()
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"why": {"type": "string"}, "answer": {"type": "string"}},
        "required": ["why", "answer"], "additionalProperties": false})
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "what it is for", "parameters": schema()}})
}

fn openai_chat() -> Vec<(&'static str, Value)> {
    let tools = json!([function("f"), function("g")]);
    let image = |url: String| {
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": url}}]}]})
    };
    let calls = json!([
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]);
    vec![
        ("text", json!({})),
        ("stream", json!({"stream": true})),
        ("usage in the stream", json!({"stream": true, "stream_options": {"include_usage": true}})),
        (
            "several turns",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}]}),
        ),
        (
            "system",
            json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]}),
        ),
        (
            "developer",
            json!({"messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "a"}]}),
        ),
        ("a speaker's name", json!({"messages": [{"role": "user", "name": "ann", "content": "a"}]})),
        (
            "an answer to go on with",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ),
        ("an image", image(format!("data:image/png;base64,{PIXEL}"))),
        ("an image elsewhere", image("http://127.0.0.1/x.png".to_owned())),
        ("tools", json!({"tools": tools})),
        ("no tool", json!({"tools": tools, "tool_choice": "none"})),
        ("any tool", json!({"tools": tools, "tool_choice": "required"})),
        (
            "this tool",
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            "some of the tools",
            json!({"tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools":
            {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}}),
        ),
        ("one call at a time", json!({"tools": tools, "parallel_tool_calls": false})),
        ("functions", json!({"functions": [function("f")["function"]], "function_call": {"name": "f"}})),
        (
            "calls and results",
            json!({"tools": tools, "messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_2", "content": "2"}, {"role": "tool", "tool_call_id": "call_1", "content": "1"}]}),
        ),
        ("JSON", json!({"response_format": {"type": "json_object"}})),
        (
            "a schema",
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema(), "strict": true}}}),
        ),
        (
            "a schema beside tools",
            json!({"tools": tools, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema()}}}),
        ),
        ("no thinking", json!({"reasoning_effort": "none"})),
        ("much thinking", json!({"reasoning_effort": "high"})),
        (
            "thoughts so far",
            json!({"messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": "hm"}, {"role": "user", "content": "c"}]}),
        ),
        ("a limit", json!({"max_completion_tokens": 5})),
        ("the older limit", json!({"max_tokens": 5})),
        ("temperature", json!({"temperature": 0.5, "top_p": 0.9})),
        ("top_k, min_p", json!({"top_k": 40, "min_p": 0.1})),
        ("a seed", json!({"seed": 7})),
        ("stop strings", json!({"stop": ["\n", "x"]})),
        ("penalties", json!({"frequency_penalty": 0.5, "presence_penalty": 0.5})),
        ("no penalties", json!({"frequency_penalty": 0, "presence_penalty": 0})),
        ("a repeat penalty", json!({"repetition_penalty": 1.1})),
        ("a bias", json!({"logit_bias": {"50256": -100}})),
        ("log probabilities", json!({"logprobs": true, "top_logprobs": 2})),
        ("two answers", json!({"n": 2})),
        ("one answer", json!({"n": 1, "logprobs": false, "parallel_tool_calls": true})),
        ("keep alive", json!({"keep_alive": "10m"})),
        (
            "hints",
            json!({"user": "u", "metadata": {"a": "b"}, "store": false, "service_tier": "auto", "prompt_cache_key": "k"}),
        ),
        ("sound", json!({"modalities": ["text", "audio"], "audio": {"voice": "v", "format": "wav"}})),
        ("a web search", json!({"web_search_options": {}, "tools": [{"type": "web_search"}]})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn openai_complete() -> Vec<(&'static str, Value)> {
    vec![
        ("text", json!({})),
        ("stream", json!({"stream": true, "stream_options": {"include_usage": true}})),
        ("the middle", json!({"suffix": "}"})),
        ("echo", json!({"echo": true})),
        ("a list of one", json!({"prompt": ["hi"]})),
        ("several texts", json!({"prompt": ["a", "b"]})),
        ("token numbers", json!({"prompt": [1, 2, 3]})),
        ("log probabilities", json!({"logprobs": 2})),
        ("two answers", json!({"n": 2})),
        ("the best of two", json!({"best_of": 2})),
        ("a limit", json!({"max_tokens": 5})),
        ("stop strings", json!({"stop": "\n"})),
        ("temperature", json!({"temperature": 0, "top_p": 1, "seed": 7})),
        ("penalties", json!({"frequency_penalty": 0.5, "presence_penalty": 0.5, "repeat_penalty": 1.1})),
        ("a bias", json!({"logit_bias": {"50256": -100}})),
        (
            "a schema",
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema()}}}),
        ),
        ("keep alive", json!({"keep_alive": -1})),
        ("hints", json!({"user": "u"})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn openai_embed() -> Vec<(&'static str, Value)> {
    vec![
        ("a text", json!({})),
        ("several texts", json!({"input": ["a", "b"]})),
        ("token numbers", json!({"input": [1, 2]})),
        ("numbers in base64", json!({"encoding_format": "base64"})),
        ("dimensions", json!({"dimensions": 8})),
        ("hints", json!({"user": "u"})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn responses() -> Vec<(&'static str, Value)> {
    let tool = |name: &str| json!({"type": "function", "name": name, "description": "what it is for", "parameters": schema(), "strict": false});
    let tools = json!([tool("f"), tool("g")]);
    let image = |url: String| {
        json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "what is it?"},
            {"type": "input_image", "image_url": url}]}]})
    };
    vec![
        ("text", json!({})),
        ("stream", json!({"stream": true})),
        (
            "several turns",
            json!({"input": [{"role": "user", "content": "a"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "b", "annotations": []}]},
            {"role": "user", "content": [{"type": "input_text", "text": "c"}]}]}),
        ),
        ("instructions", json!({"instructions": "be brief"})),
        (
            "developer",
            json!({"input": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "a"}]}),
        ),
        ("an image", image(format!("data:image/png;base64,{PIXEL}"))),
        ("an image elsewhere", image("http://127.0.0.1/x.png".to_owned())),
        ("tools", json!({"tools": tools})),
        ("no tool", json!({"tools": tools, "tool_choice": "none"})),
        ("any tool", json!({"tools": tools, "tool_choice": "required"})),
        ("this tool", json!({"tools": tools, "tool_choice": {"type": "function", "name": "f"}})),
        ("one call at a time", json!({"tools": tools, "parallel_tool_calls": false})),
        (
            "calls and results",
            json!({"tools": tools, "input": [{"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{\"x\":1}"},
            {"type": "function_call", "call_id": "call_2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "1"},
            {"type": "function_call_output", "call_id": "call_2", "output": "2"}]}),
        ),
        (
            "an image in a result",
            json!({"tools": tools, "input": [{"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output":
                [{"type": "input_image", "image_url": format!("data:image/png;base64,{PIXEL}")}]}]}),
        ),
        ("JSON", json!({"text": {"format": {"type": "json_object"}}})),
        (
            "a schema",
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": schema(), "strict": true}}}),
        ),
        ("much thinking", json!({"reasoning": {"effort": "high"}})),
        ("no thinking", json!({"reasoning": {"effort": "none"}})),
        ("a summary of thoughts", json!({"reasoning": {"summary": "auto"}})),
        (
            "thoughts so far",
            json!({"input": [{"role": "user", "content": "a"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}),
        ),
        (
            "sealed thoughts",
            json!({"include": ["reasoning.encrypted_content"], "input": [{"role": "user", "content": "a"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
            {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}),
        ),
        ("a limit", json!({"max_output_tokens": 5})),
        ("temperature", json!({"temperature": 0.5, "top_p": 0.9})),
        ("log probabilities", json!({"top_logprobs": 2, "include": ["message.output_text.logprobs"]})),
        ("brief words", json!({"text": {"verbosity": "low"}})),
        ("a cut from the front", json!({"truncation": "auto"})),
        ("no cut", json!({"truncation": "disabled", "store": false, "background": false})),
        ("an earlier answer", json!({"previous_response_id": "resp_1"})),
        ("in the background", json!({"background": true})),
        ("a web search", json!({"tools": [{"type": "web_search"}]})),
        ("a custom tool", json!({"tools": [{"type": "custom", "name": "c"}]})),
        (
            "hints",
            json!({"user": "u", "metadata": {"a": "b"}, "prompt_cache_key": "k", "service_tier": "auto"}),
        ),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn messages() -> Vec<(&'static str, Value)> {
    let tool = |name: &str| json!({"name": name, "description": "what it is for", "input_schema": schema()});
    let tools = json!([tool("f"), tool("g")]);
    let source = json!({"type": "base64", "media_type": "image/png", "data": PIXEL});
    let result = |content: Value, failed: bool| {
        json!({"tools": tools, "messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "is_error": failed, "content": content}]}]})
    };
    vec![
        ("text", json!({})),
        ("stream", json!({"stream": true})),
        (
            "several turns",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"}]}),
        ),
        ("system", json!({"system": "be brief"})),
        (
            "system in blocks",
            json!({"system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "be kind"}]}),
        ),
        (
            "an answer to go on with",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}]}),
        ),
        (
            "an image",
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "what is it?"}]}]}),
        ),
        (
            "an image elsewhere",
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}]}]}),
        ),
        (
            "a document",
            json!({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]}]}),
        ),
        ("tools", json!({"tools": tools})),
        ("no tool", json!({"tools": tools, "tool_choice": {"type": "none"}})),
        ("any tool", json!({"tools": tools, "tool_choice": {"type": "any"}})),
        ("this tool", json!({"tools": tools, "tool_choice": {"type": "tool", "name": "f"}})),
        (
            "an object (AI SDK)",
            json!({"tools": [tool("json")], "tool_choice": {"type": "tool", "name": "json", "disable_parallel_tool_use": true}}),
        ),
        (
            "one call at a time",
            json!({"tools": tools, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
        ),
        ("a call and its result", result("1".into(), false)),
        ("a result that failed", result(json!([{"type": "text", "text": "no"}]), true)),
        ("an image in a result", result(json!([{"type": "image", "source": source}]), false)),
        ("a schema", json!({"output_config": {"format": {"type": "json_schema", "schema": schema()}}})),
        ("no thinking", json!({"thinking": {"type": "disabled"}})),
        (
            "thinking within a budget",
            json!({"max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ),
        ("thinking as it likes", json!({"thinking": {"type": "adaptive"}})),
        ("much thinking", json!({"output_config": {"effort": "high"}})),
        (
            "thoughts so far",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "text", "text": "b"}]}, {"role": "user", "content": "c"}]}),
        ),
        (
            "sealed thoughts",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [
            {"type": "redacted_thinking", "data": "c2ln"}, {"type": "text", "text": "b"}]}, {"role": "user", "content": "c"}]}),
        ),
        ("temperature", json!({"temperature": 0.5, "top_p": 0.9, "top_k": 40})),
        ("stop strings", json!({"stop_sequences": ["\n", "x"]})),
        ("hints", json!({"metadata": {"user_id": "u"}, "service_tier": "auto"})),
        ("a web search", json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn ollama_chat() -> Vec<(&'static str, Value)> {
    let tools = json!([function("f"), function("g")]);
    vec![
        ("stream", json!({})),
        ("text", json!({"stream": false})),
        (
            "several turns",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]}),
        ),
        (
            "system",
            json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a"}]}),
        ),
        ("an image", json!({"messages": [{"role": "user", "content": "what is it?", "images": [PIXEL]}]})),
        ("tools", json!({"tools": tools})),
        (
            "calls and results",
            json!({"tools": tools, "messages": [{"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"name": "g", "arguments": {}}}]},
            {"role": "tool", "tool_name": "f", "content": "1"}, {"role": "tool", "tool_name": "g", "content": "2"}]}),
        ),
        ("JSON", json!({"format": "json"})),
        ("a schema", json!({"format": schema()})),
        ("thinking", json!({"think": true})),
        ("no thinking", json!({"think": false})),
        ("much thinking", json!({"think": "high"})),
        (
            "thoughts so far",
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "hm"}, {"role": "user", "content": "c"}]}),
        ),
        ("a limit", json!({"options": {"num_predict": 5}})),
        ("no limit", json!({"options": {"num_predict": -1}})),
        (
            "temperature",
            json!({"options": {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7}}),
        ),
        ("stop strings", json!({"options": {"stop": ["\n", "x"]}})),
        (
            "penalties",
            json!({"options": {"repeat_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": 0.5}}),
        ),
        ("a large context", json!({"options": {"num_ctx": 8192}})),
        ("keep alive", json!({"keep_alive": "10m"})),
        ("log probabilities", json!({"logprobs": true, "top_logprobs": 2})),
        ("a cut from the front", json!({"truncate": true})),
        ("no cut", json!({"truncate": false, "shift": false})),
        ("mirostat", json!({"options": {"mirostat": 2}})),
        ("no mirostat", json!({"options": {"mirostat": 0}})),
        ("threads", json!({"options": {"num_thread": 4, "num_gpu": 1}})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn ollama_generate() -> Vec<(&'static str, Value)> {
    vec![
        ("stream", json!({})),
        ("text", json!({"stream": false})),
        ("system", json!({"system": "be brief"})),
        ("an image", json!({"images": [PIXEL]})),
        ("the middle", json!({"suffix": "}"})),
        ("raw", json!({"raw": true})),
        ("JSON", json!({"format": "json"})),
        ("a schema", json!({"format": schema()})),
        ("thinking", json!({"think": true})),
        ("a limit", json!({"options": {"num_predict": 5}})),
        ("stop strings", json!({"options": {"stop": ["\n"]}})),
        (
            "raw with options",
            json!({"raw": true, "options": {"temperature": 0, "stop": ["\n"], "num_predict": 5}}),
        ),
        ("keep alive", json!({"keep_alive": 0})),
        ("a large context", json!({"options": {"num_ctx": 8192}})),
        ("a template", json!({"template": "{{ .Prompt }}"})),
        ("the context so far", json!({"context": [1, 2, 3]})),
        ("log probabilities", json!({"logprobs": true})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn ollama_embed() -> Vec<(&'static str, Value)> {
    vec![
        ("a text", json!({})),
        ("several texts", json!({"input": ["a", "b"]})),
        ("dimensions", json!({"dimensions": 8})),
        ("a cut", json!({"truncate": true})),
        ("no cut", json!({"truncate": false})),
        ("keep alive", json!({"keep_alive": "10m"})),
        ("a large context", json!({"options": {"num_ctx": 8192}})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}

fn ollama_embeddings() -> Vec<(&'static str, Value)> {
    vec![
        ("a text", json!({})),
        ("keep alive", json!({"keep_alive": "10m"})),
        ("an unknown field", json!({"frobnicate": 1})),
    ]
}
