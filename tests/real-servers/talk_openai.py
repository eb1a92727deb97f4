#!/usr/bin/env python3
"""Talk to lovable's socket with the official openai package, streamed and not."""

import argparse
import asyncio

import httpx
import openai


def check(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"{what}: {found!r}, not {wanted!r}")
    print(f"{what}: fine")


def synchronous(args):
    transport = httpx.HTTPTransport(uds=args.socket)
    client = openai.OpenAI(
        base_url="http://lovable/v1", api_key="none", http_client=httpx.Client(transport=transport), max_retries=0
    )
    check("models", args.model in [model.id for model in client.models.list()], True)
    check("one model", client.models.retrieve(args.model).id, args.model)
    messages = [{"role": "user", "content": "Count for me."}]

    answer = client.chat.completions.create(model=args.model, messages=messages)
    check("chat", answer.choices[0].message.content, args.expect)
    check("finish reason", answer.choices[0].finish_reason, "stop")

    said, usage = "", None
    for chunk in client.chat.completions.create(
        model=args.model, messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        said += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    check("chat, streamed", said, args.expect)
    check("usage asked for", usage is not None, True)

    chunks = list(client.chat.completions.create(model=args.model, messages=messages, stream=True))
    check("usage not asked for", [chunk for chunk in chunks if chunk.usage or not chunk.choices], [])

    answer = client.completions.create(model=args.model, prompt="Count for me.")
    check("completion", answer.choices[0].text, args.expect)
    stream = client.completions.create(model=args.model, prompt="Count for me.", stream=True)
    check("completion, streamed", "".join(chunk.choices[0].text for chunk in stream), args.expect)

    vectors = client.embeddings.create(model=args.embedder, input=["one", "two"], encoding_format="float")
    check("embeddings", len(vectors.data), 2)

    try:
        client.chat.completions.create(model="no-such-model", messages=messages)
    except openai.NotFoundError as error:
        check("an unknown model", error.status_code, 404)
        check("and its code", error.code, "model_not_found")
    else:
        raise SystemExit("an unknown model was answered")


async def asynchronous(args):
    transport = httpx.AsyncHTTPTransport(uds=args.socket)
    client = openai.AsyncOpenAI(
        base_url="http://lovable/v1", api_key="none", http_client=httpx.AsyncClient(transport=transport)
    )

    async def one():
        said = ""
        stream = await client.chat.completions.create(
            model=args.model, messages=[{"role": "user", "content": "Count for me."}], stream=True
        )
        async for chunk in stream:
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
        return said

    check("eight streams at once", await asyncio.gather(*[one() for _ in range(8)]), [args.expect] * 8)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--model", required=True)
    parser.add_argument("--embedder", required=True, help="a model that makes vectors")
    parser.add_argument("--expect", required=True, help="what the model says")
    args = parser.parse_args()
    synchronous(args)
    asyncio.run(asynchronous(args))


if __name__ == "__main__":
    main()
