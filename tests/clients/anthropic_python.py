"""The official `anthropic` package."""

import anthropic
import httpx2
from pydantic import BaseModel
from scene import ADDRESS, ASKING, KEY, LIMIT, MESSAGES, RESULTS, SOCKET, TEXT, TOOLS, broken, called, ended, person, raises, run, same


class Person(BaseModel):
    name: str
    age: int


def over_socket():
    transport = httpx2.HTTPTransport(uds=SOCKET)
    return anthropic.Anthropic(
        base_url="http://lovable", api_key=KEY, http_client=httpx2.Client(transport=transport)
    )


DEFINED = [{"name": name, "description": text, "input_schema": schema} for name, text, schema in TOOLS]


def ask(model, **more):
    return {"model": model, "max_tokens": LIMIT or 1000, "messages": MESSAGES} | more


def text(api, model):
    answer = api.messages.create(**ask(model.chat, system="Count."))
    same("text", answer.content[0].text, TEXT)
    ended(answer.stop_reason, "end_turn")
    same("tokens counted", answer.usage.output_tokens > 0, True)


def pieces(api, model):
    with api.messages.stream(**ask(model)) as events:
        yield from events.text_stream


def stream(api, model):
    same("text", "".join(pieces(api, model.chat)), TEXT)
    with api.messages.stream(**ask(model.chat)) as events:
        answer = events.get_final_message()
    same("the final answer", answer.content[0].text, TEXT)
    ended(answer.stop_reason, "end_turn")


def uses(answer):
    return [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"]


def tools(api, model):
    answer = api.messages.create(**ask(model.chat, tools=DEFINED, messages=ASKING))
    called(uses(answer))
    same("stop reason", answer.stop_reason, "tool_use")


def tools_streamed(api, model):
    with api.messages.stream(**ask(model.chat, tools=DEFINED, messages=ASKING)) as events:
        answer = events.get_final_message()
    called(uses(answer))
    same("stop reason", answer.stop_reason, "tool_use")


def tool_results(api, model):
    asked = api.messages.create(**ask(model.chat, tools=DEFINED, messages=ASKING))
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": RESULTS[name]} for id, name, _ in uses(asked)
    ]
    talk = [*ASKING, {"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    answer = api.messages.create(**ask(model.chat, tools=DEFINED, messages=talk))
    same("text", answer.content[0].text, TEXT)


def object(api, model):
    answer = api.messages.parse(**ask(model.chat), output_format=Person)
    person(answer.parsed_output.model_dump())
    forced = [{"name": "json", "description": "Say it.", "input_schema": Person.model_json_schema()}]
    answer = api.messages.create(**ask(model.chat, tools=forced, tool_choice={"type": "tool", "name": "json"}))
    person(uses(answer)[0][2])


def models(api, model):
    listed = {listed.id: listed for listed in api.models.list()}
    same("both are listed", [name in listed for name in (model.chat, model.embed)], [True, True])
    same("a name for people", bool(listed[model.chat].display_name), True)
    same("tokens", api.messages.count_tokens(model=model.chat, messages=MESSAGES).input_tokens > 0, True)


def refused(api, model):
    error = raises(anthropic.NotFoundError, lambda: api.messages.create(**ask("no-such-model")))
    same("type", error.body["error"]["type"], "not_found_error")
    raises(anthropic.InternalServerError, lambda: api.messages.create(**ask(model.fails)))
    raises(anthropic.InternalServerError, lambda: list(pieces(api, model.fails)))


run(
    "anthropic, Python",
    {
        "socket": over_socket,
        "tcp": lambda: anthropic.Anthropic(base_url=ADDRESS, api_key=KEY),
        "environment": anthropic.Anthropic,
    },
    {
        "text": text,
        "stream": stream,
        "tools": tools,
        "tools streamed": tools_streamed,
        "tool results": tool_results,
        "object": object,
        "models": models,
        "refused": refused,
        "broken off": lambda api, model: broken(anthropic.APIError, lambda: pieces(api, model.breaks)),
        "keyless": lambda api, model: raises(anthropic.AuthenticationError, lambda: text(api, model)),
    },
)
