"""`langchain-openai`, over chat completions and over responses."""

import httpx2
import openai
from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from scene import ADDRESS, ASKING, KEY, MESSAGES, PERSON, RESULTS, SOCKET, TEXT, TOOLS, broken, called, person, raises, run, same

DEFINED = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for name, text, schema in TOOLS
]
MAKERS = {
    "socket": lambda: {
        "base_url": "http://lovable/v1",
        "api_key": KEY,
        "http_client": httpx2.Client(transport=httpx2.HTTPTransport(uds=SOCKET)),
    },
    "tcp": lambda: {"base_url": f"{ADDRESS}/v1", "api_key": KEY},
    "environment": dict,
}


def calls(message):
    return [(call["id"], call["name"], call["args"]) for call in message.tool_calls]


def with_responses(wanted):
    def talker(api, model):
        return ChatOpenAI(model=model, use_responses_api=wanted, **api)

    def pieces(api, model):
        return (piece.text for piece in talker(api, model).stream(MESSAGES))

    def text(api, model):
        answer = talker(api, model.chat).invoke(MESSAGES)
        same("text", answer.text, TEXT)
        same("tokens counted", answer.usage_metadata["output_tokens"] > 0, True)

    def tools_streamed(api, model):
        whole = None
        for piece in talker(api, model.chat).bind_tools(DEFINED).stream(ASKING):
            whole = piece if whole is None else whole + piece
        called(calls(whole))

    def tool_results(api, model):
        bound = talker(api, model.chat).bind_tools(DEFINED)
        asked = bound.invoke(ASKING)
        results = [ToolMessage(RESULTS[call["name"]], tool_call_id=call["id"]) for call in asked.tool_calls]
        same("text", bound.invoke([*ASKING, asked, *results]).text, TEXT)

    def object(api, model):
        schema = {"title": "person", "description": "A person.", **PERSON}
        person(talker(api, model.chat).with_structured_output(schema, method="json_schema").invoke(MESSAGES))

    def embeddings(api, model):
        # What it sends to OpenAI otherwise is numbers of tokens, which only OpenAI's own models understand.
        vectors = OpenAIEmbeddings(model=model.embed, check_embedding_ctx_length=False, **api)
        same("vectors", len(vectors.embed_documents(["one", "two"])), 2)

    def refused(api, model):
        raises(openai.NotFoundError, lambda: talker(api, "no-such-model").invoke(MESSAGES))
        raises(openai.InternalServerError, lambda: talker(api, model.fails).invoke(MESSAGES))
        raises(openai.InternalServerError, lambda: list(pieces(api, model.fails)))

    return {
        "text": text,
        "stream": lambda api, model: same("text", "".join(pieces(api, model.chat)), TEXT),
        "tools": lambda api, model: called(calls(talker(api, model.chat).bind_tools(DEFINED).invoke(ASKING))),
        "tools streamed": tools_streamed,
        "tool results": tool_results,
        "object": object,
        "embeddings": None if wanted else embeddings,
        "refused": refused,
        "broken off": lambda api, model: broken(openai.APIError, lambda: pieces(api, model.breaks)),
        "keyless": lambda api, model: raises(openai.AuthenticationError, lambda: text(api, model)),
    }


run("langchain-openai, chat", MAKERS, with_responses(False))
run("langchain-openai, responses", MAKERS, with_responses(True))
