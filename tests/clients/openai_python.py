"""The official `openai` package, over chat completions and over responses."""

import json

import httpx2
import openai
from pydantic import BaseModel
from scene import ADDRESS, ASKING, KEY, LIMIT, MESSAGES, RESULTS, SOCKET, TEXT, TOOLS, broken, called, ended, person, raises, run, same


class Person(BaseModel):
    name: str
    age: int


def over_socket():
    transport = httpx2.HTTPTransport(uds=SOCKET)
    return openai.OpenAI(base_url="http://lovable/v1", api_key=KEY, http_client=httpx2.Client(transport=transport))


MAKERS = {
    "socket": over_socket,
    "tcp": lambda: openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key=KEY),
    "environment": openai.OpenAI,
}
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for name, text, schema in TOOLS
]


def text(api, model):
    answer = api.chat.completions.create(model=model.chat, messages=MESSAGES)
    same("text", answer.choices[0].message.content, TEXT)
    ended(answer.choices[0].finish_reason, "stop")
    same("tokens counted", answer.usage.completion_tokens > 0, True)


def pieces(api, model):
    for chunk in api.chat.completions.create(model=model, messages=MESSAGES, stream=True):
        yield from (choice.delta.content or "" for choice in chunk.choices)


def stream(api, model):
    same("text", "".join(pieces(api, model.chat)), TEXT)
    options = {"include_usage": True}
    chunks = list(
        api.chat.completions.create(model=model.chat, messages=MESSAGES, stream=True, stream_options=options)
    )
    same("usage comes last", [bool(chunk.usage) for chunk in chunks][-2:], [False, True])
    plain = api.chat.completions.create(model=model.chat, messages=MESSAGES, stream=True)
    same("usage that nobody asked for", [chunk for chunk in plain if chunk.usage or not chunk.choices], [])


def of_chat(message):
    return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


def tools(api, model):
    answer = api.chat.completions.create(model=model.chat, messages=ASKING, tools=CHAT_TOOLS)
    called(of_chat(answer.choices[0].message))
    same("finish reason", answer.choices[0].finish_reason, "tool_calls")


def tools_streamed(api, model):
    with api.chat.completions.stream(model=model.chat, messages=ASKING, tools=CHAT_TOOLS) as events:
        answer = events.get_final_completion()
    called(of_chat(answer.choices[0].message))
    same("finish reason", answer.choices[0].finish_reason, "tool_calls")


def tool_results(api, model):
    asked = api.chat.completions.create(model=model.chat, messages=ASKING, tools=CHAT_TOOLS).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": RESULTS[call.function.name]} for call in asked.tool_calls
    ]
    answer = api.chat.completions.create(
        model=model.chat, messages=[*ASKING, asked, *results], tools=CHAT_TOOLS
    )
    same("text", answer.choices[0].message.content, TEXT)


def object(api, model):
    answer = api.chat.completions.parse(model=model.chat, messages=MESSAGES, response_format=Person)
    person(answer.choices[0].message.parsed.model_dump())


def embeddings(api, model):
    for form in ("float", "base64"):
        vectors = api.embeddings.create(model=model.embed, input=["one", "two"], encoding_format=form)
        same("vectors", [vector.index for vector in vectors.data], [0, 1])
    vectors = api.embeddings.create(model=model.embed, input="one")
    same("numbers in it", all(isinstance(number, float) for number in vectors.data[0].embedding), True)


def models(api, model):
    listed = [listed.id for listed in api.models.list()]
    same("both are listed", [name in listed for name in (model.chat, model.embed)], [True, True])
    same("one model", api.models.retrieve(model.chat).id, model.chat)


def refused(api, model):
    error = raises(openai.NotFoundError, lambda: text(api, type(model)({"chat": "no-such-model"})))
    same("code", error.code, "model_not_found")
    raises(openai.InternalServerError, lambda: text(api, type(model)({"chat": model.fails})))
    raises(openai.InternalServerError, lambda: list(pieces(api, model.fails)))


run(
    "openai, Python, chat",
    MAKERS,
    {
        "text": text,
        "stream": stream,
        "tools": tools,
        "tools streamed": tools_streamed,
        "tool results": tool_results,
        "object": object,
        "embeddings": embeddings,
        "models": models,
        "refused": refused,
        "broken off": lambda api, model: broken(openai.APIError, lambda: pieces(api, model.breaks)),
        "keyless": lambda api, model: raises(openai.AuthenticationError, lambda: text(api, model)),
    },
)

ITEM_TOOLS = [
    {"type": "function", "name": name, "description": text, "parameters": schema, "strict": False}
    for name, text, schema in TOOLS
]


def said(api, model):
    answer = api.responses.create(model=model.chat, input="Count for me.", instructions="Count.")
    same("text", answer.output_text, TEXT)
    ended(answer.status, "completed")
    same("tokens counted", answer.usage.output_tokens > 0, True)


def deltas(api, model):
    for event in api.responses.create(model=model, input="Count for me.", stream=True):
        if event.type == "response.output_text.delta":
            yield event.delta


def said_streamed(api, model):
    same("text", "".join(deltas(api, model.chat)), TEXT)
    if LIMIT:
        return  # Its helper takes an answer that was cut short for none.
    with api.responses.stream(model=model.chat, input="Count for me.") as events:
        numbers = [event.sequence_number for event in events]
        same("sequence numbers", numbers, list(range(len(numbers))))
        same("the final answer", events.get_final_response().output_text, TEXT)


def of_items(answer):
    return [
        (item.call_id, item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"
    ]


def calls_streamed(api, model):
    with api.responses.stream(model=model.chat, input=ASKING, tools=ITEM_TOOLS) as events:
        called(of_items(events.get_final_response()))


def call_results(api, model):
    asked = api.responses.create(model=model.chat, input=ASKING, tools=ITEM_TOOLS)
    results = [
        {"type": "function_call_output", "call_id": id, "output": RESULTS[name]} for id, name, _ in of_items(asked)
    ]
    answer = api.responses.create(
        model=model.chat, input=[*ASKING, *asked.output, *results], tools=ITEM_TOOLS
    )
    same("text", answer.output_text, TEXT)


def parsed(api, model):
    answer = api.responses.parse(model=model.chat, input="Who?", text_format=Person)
    person(answer.output_parsed.model_dump())


def said_refused(api, model):
    raises(openai.NotFoundError, lambda: said(api, type(model)({"chat": "no-such-model"})))
    raises(openai.InternalServerError, lambda: said(api, type(model)({"chat": model.fails})))
    raises(openai.InternalServerError, lambda: list(deltas(api, model.fails)))


run(
    "openai, Python, responses",
    MAKERS,
    {
        "text": said,
        "stream": said_streamed,
        "tools": lambda api, model: called(
            of_items(api.responses.create(model=model.chat, input=ASKING, tools=ITEM_TOOLS))
        ),
        "tools streamed": calls_streamed,
        "tool results": call_results,
        "object": parsed,
        "refused": said_refused,
        "broken off": lambda api, model: broken(openai.APIError, lambda: deltas(api, model.breaks)),
        "keyless": lambda api, model: raises(openai.AuthenticationError, lambda: said(api, model)),
    },
)
