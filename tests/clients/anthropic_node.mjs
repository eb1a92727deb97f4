// The official `@anthropic-ai/sdk` package.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";
import { ADDRESS, ASKING, KEY, LIMIT, MESSAGES, PERSON, RESULTS, TEXT, TOOLS } from "./scene.mjs";
import { broken, called, ended, fetch, gathered, person, raises, run, same } from "./scene.mjs";

const Person = z.object({ name: z.string(), age: z.int() });
const DEFINED = TOOLS.map(([name, description, input_schema]) => ({ name, description, input_schema }));
const ask = (model, more) => ({ model, max_tokens: LIMIT ?? 1000, messages: MESSAGES, ...more });
const isMissing = (error) => error instanceof Anthropic.NotFoundError;
const isServer = (error) => error instanceof Anthropic.InternalServerError;
const isAny = (error) => error instanceof Anthropic.APIError;

async function* pieces(api, model) {
  for await (const event of await api.messages.create(ask(model, { stream: true }))) {
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") yield event.delta.text;
  }
}

const uses = (answer) =>
  answer.content.filter((block) => block.type === "tool_use").map((block) => [block.id, block.name, block.input]);

await run(
  "anthropic, Node",
  {
    socket: () => new Anthropic({ baseURL: "http://lovable", apiKey: KEY, fetch }),
    tcp: () => new Anthropic({ baseURL: ADDRESS, apiKey: KEY }),
    environment: () => new Anthropic(),
  },
  {
    text: async (api, model) => {
      const answer = await api.messages.create(ask(model.chat, { system: "Count." }));
      same("text", answer.content[0].text, TEXT);
      ended(answer.stop_reason, "end_turn");
    },
    stream: async (api, model) => {
      same("text", await gathered(pieces(api, model.chat)), TEXT);
      const answer = await api.messages.stream(ask(model.chat)).finalMessage();
      same("the final answer", answer.content[0].text, TEXT);
      ended(answer.stop_reason, "end_turn");
    },
    tools: async (api, model) => {
      const answer = await api.messages.create(ask(model.chat, { tools: DEFINED, messages: ASKING }));
      called(uses(answer));
      same("stop reason", answer.stop_reason, "tool_use");
    },
    "tools streamed": async (api, model) =>
      called(uses(await api.messages.stream(ask(model.chat, { tools: DEFINED, messages: ASKING })).finalMessage())),
    "tool results": async (api, model) => {
      const asked = await api.messages.create(ask(model.chat, { tools: DEFINED, messages: ASKING }));
      const results = uses(asked).map(([tool_use_id, name]) => ({
        type: "tool_result",
        tool_use_id,
        content: RESULTS[name],
      }));
      const talk = [...ASKING, { role: "assistant", content: asked.content }, { role: "user", content: results }];
      const answer = await api.messages.create(ask(model.chat, { tools: DEFINED, messages: talk }));
      same("text", answer.content[0].text, TEXT);
    },
    object: async (api, model) => {
      const output_config = { format: zodOutputFormat(Person) };
      person((await api.messages.parse(ask(model.chat, { output_config }))).parsed_output);
      const tools = [{ name: "json", description: "Say it.", input_schema: PERSON }];
      const tool_choice = { type: "tool", name: "json" };
      person(uses(await api.messages.create(ask(model.chat, { tools, tool_choice })))[0][2]);
    },
    models: async (api, model) => {
      const listed = [];
      for await (const one of api.models.list()) listed.push(one.id);
      same("both are listed", [listed.includes(model.chat), listed.includes(model.embed)], [true, true]);
      const counted = await api.messages.countTokens({ model: model.chat, messages: MESSAGES });
      same("tokens", counted.input_tokens > 0, true);
    },
    refused: async (api, model) => {
      const error = await raises(isMissing, () => api.messages.create(ask("no-such-model")));
      same("type", error.error.error.type, "not_found_error");
      await raises(isServer, () => api.messages.create(ask(model.fails)));
      await raises(isServer, () => gathered(pieces(api, model.fails)));
    },
    "broken off": (api, model) => broken(isAny, () => pieces(api, model.breaks)),
    keyless: (api, model) => raises((error) => error.status === 401, () => api.messages.create(ask(model.chat))),
  },
);
