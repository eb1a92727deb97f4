"""`litellm`, through each of the providers that have a dialect of their own here. It takes no Unix socket."""

import json
import os
import warnings

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # It fetches a list from the network otherwise.
warnings.filterwarnings("ignore")

import litellm
import openai
from scene import ADDRESS, ASKING, KEY, LIMIT, MESSAGES, PERSON, RESULTS, TEXT, TOOLS, broken, called, ended, person, raises, run, same

litellm.suppress_debug_info = True
DEFINED = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for name, text, schema in TOOLS
]
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}


def calls(message):
    return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


def through(provider, embeds):
    def ask(api, model, **more):
        more = {"messages": MESSAGES, "max_tokens": LIMIT} | more
        return litellm.completion(model=f"{provider}/{model}", **api, **more)

    def text(api, model):
        answer = ask(api, model.chat)
        same("text", answer.choices[0].message.content, TEXT)
        ended(answer.choices[0].finish_reason, "stop")
        same("tokens counted", answer.usage.completion_tokens > 0, True)

    def pieces(api, model):
        for chunk in ask(api, model, stream=True):
            yield chunk.choices[0].delta.content or ""

    def tools_streamed(api, model):
        # Its own `stream_chunk_builder` goes by the place in a chunk, and so takes two calls of Ollama's for one.
        said = {}
        for chunk in ask(api, model.chat, tools=DEFINED, messages=ASKING, stream=True):
            for piece in chunk.choices[0].delta.tool_calls or []:
                id = piece.id or list(said)[-1]
                name, arguments = said.get(id, (piece.function.name, ""))
                said[id] = (name, arguments + (piece.function.arguments or ""))
        called([(id, name, json.loads(arguments)) for id, (name, arguments) in said.items()])

    def tool_results(api, model):
        asked = ask(api, model.chat, tools=DEFINED, messages=ASKING).choices[0].message
        results = [
            {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": RESULTS[call.function.name]}
            for call in asked.tool_calls
        ]
        answer = ask(api, model.chat, tools=DEFINED, messages=[*ASKING, asked.model_dump(exclude_none=True), *results])
        same("text", answer.choices[0].message.content, TEXT)

    def embeddings(api, model):
        vectors = litellm.embedding(model=f"{embeds}/{model.embed}", input=["one", "two"], **api)
        same("vectors", len(vectors.data), 2)

    def refused(api, model):
        error = raises(openai.APIError, lambda: ask(api, "no-such-model"))
        same("status", error.status_code, 404)
        raises(openai.APIError, lambda: ask(api, model.fails))
        raises(openai.APIError, lambda: list(pieces(api, model.fails)))

    return {
        "text": text,
        "stream": lambda api, model: same("text", "".join(pieces(api, model.chat)), TEXT),
        "tools": lambda api, model: called(calls(ask(api, model.chat, tools=DEFINED, messages=ASKING).choices[0].message)),
        "tools streamed": tools_streamed,
        "tool results": tool_results,
        "object": lambda api, model: person(
            json.loads(ask(api, model.chat, response_format=FORMAT).choices[0].message.content)
        ),
        "embeddings": embeddings if embeds else None,
        "refused": refused,
        "broken off": lambda api, model: broken(openai.APIError, lambda: pieces(api, model.breaks)),
        "keyless": lambda api, model: raises(litellm.AuthenticationError, lambda: text(api, model)),
    }


for provider, door, embeds in [("openai", "/v1", "openai"), ("anthropic", "", None), ("ollama_chat", "", "ollama")]:
    makers = {"tcp": lambda: {"api_base": ADDRESS + door, "api_key": KEY}}
    # Its variable for Ollama is one of its own.
    makers |= {} if provider == "ollama_chat" else {"environment": dict}
    run(
        f"litellm, {provider}",
        makers,
        through(provider, embeds),
    )
