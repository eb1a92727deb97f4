"""The official `ollama` package."""

import json

import httpx
import ollama
from scene import ADDRESS, ASKING, MESSAGES, PERSON, RESULTS, SOCKET, TEXT, TOOLS, broken, called, ended, person, raises, run, same

DEFINED = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for name, text, schema in TOOLS
]


def text(api, model):
    answer = api.chat(model=model.chat, messages=MESSAGES)
    same("text", answer.message.content, TEXT)
    same("it is done", answer.done, True)
    ended(answer.done_reason, "stop")
    same("tokens counted", answer.eval_count > 0, True)
    same("generated", api.generate(model=model.chat, prompt="Count for me.").response, TEXT)


def pieces(api, model):
    for line in api.chat(model=model, messages=MESSAGES, stream=True):
        yield line.message.content or ""


def stream(api, model):
    same("text", "".join(pieces(api, model.chat)), TEXT)
    lines = list(api.generate(model=model.chat, prompt="Count for me.", stream=True))
    same("generated", "".join(line.response for line in lines), TEXT)
    same("only the last line is done", [line.done for line in lines], [False] * (len(lines) - 1) + [True])


def calls(messages):
    # Older servers give a call no id, and so this client has no field for one.
    found = [call for message in messages for call in message.tool_calls or []]
    return [(index + 1, call.function.name, dict(call.function.arguments)) for index, call in enumerate(found)]


def tools_streamed(api, model):
    lines = api.chat(model=model.chat, messages=ASKING, tools=DEFINED, stream=True)
    called(calls(line.message for line in lines))


def tool_results(api, model):
    asked = api.chat(model=model.chat, messages=ASKING, tools=DEFINED).message
    results = [
        {"role": "tool", "tool_name": call.function.name, "content": RESULTS[call.function.name]}
        for call in asked.tool_calls
    ]
    answer = api.chat(model=model.chat, messages=[*ASKING, asked, *results], tools=DEFINED)
    same("text", answer.message.content, TEXT)


def embeddings(api, model):
    vectors = api.embed(model=model.embed, input=["one", "two"]).embeddings
    same("vectors", len(vectors), 2)
    same("the older route", len(api.embeddings(model=model.embed, prompt="one").embedding), len(vectors[0]))


def models(api, model):
    listed = [listed.model for listed in api.list().models]
    for name in (model.chat, model.embed):
        same(f"{name} is listed", name in listed or f"{name}:latest" in listed, True)
    same("what it can do", "completion" in api.show(model.chat).capabilities, True)
    api.ps()


def refused(api, model):
    error = raises(ollama.ResponseError, lambda: api.chat(model="no-such-model", messages=MESSAGES))
    same("status", error.status_code, 404)
    raises(ollama.ResponseError, lambda: api.chat(model=model.fails, messages=MESSAGES))
    raises(ollama.ResponseError, lambda: list(pieces(api, model.fails)))


run(
    "ollama, Python",
    {
        "socket": lambda: ollama.Client("http://lovable", transport=httpx.HTTPTransport(uds=SOCKET)),
        "tcp": lambda: ollama.Client(ADDRESS),
        "environment": ollama.Client,
    },
    {
        "text": text,
        "stream": stream,
        "tools": lambda api, model: called(
            calls([api.chat(model=model.chat, messages=ASKING, tools=DEFINED).message])
        ),
        "tools streamed": tools_streamed,
        "tool results": tool_results,
        "object": lambda api, model: person(
            json.loads(api.chat(model=model.chat, messages=MESSAGES, format=PERSON).message.content)
        ),
        "embeddings": embeddings,
        "models": models,
        "refused": refused,
        "broken off": lambda api, model: broken(ollama.ResponseError, lambda: pieces(api, model.breaks)),
        "keyless": lambda api, model: raises(ollama.ResponseError, lambda: text(api, model)),
    },
)
