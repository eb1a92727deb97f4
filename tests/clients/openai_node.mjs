// The official `openai` package, over chat completions and over responses.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { ADDRESS, ASKING, KEY, MESSAGES, RESULTS, TEXT, TOOLS } from "./scene.mjs";
import { broken, called, ended, fetch, gathered, person, raises, run, same } from "./scene.mjs";

const Person = z.object({ name: z.string(), age: z.int() });
const MAKERS = {
  socket: () => new OpenAI({ baseURL: "http://lovable/v1", apiKey: KEY, fetch }),
  tcp: () => new OpenAI({ baseURL: `${ADDRESS}/v1`, apiKey: KEY }),
  environment: () => new OpenAI(),
};
const CHAT_TOOLS = TOOLS.map(([name, description, parameters]) => ({
  type: "function",
  function: { name, description, parameters },
}));
const isMissing = (error) => error instanceof OpenAI.NotFoundError;
const isServer = (error) => error instanceof OpenAI.InternalServerError;
const isAny = (error) => error instanceof OpenAI.APIError;

async function text(api, model) {
  const answer = await api.chat.completions.create({ model: model.chat, messages: MESSAGES });
  same("text", answer.choices[0].message.content, TEXT);
  ended(answer.choices[0].finish_reason, "stop");
  same("tokens counted", answer.usage.completion_tokens > 0, true);
}

async function* pieces(api, model) {
  const stream = await api.chat.completions.create({ model, messages: MESSAGES, stream: true });
  for await (const chunk of stream) yield chunk.choices[0]?.delta?.content ?? "";
}

const ofChat = (message) =>
  message.tool_calls.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]);

async function toolResults(api, model) {
  const ask = { model: model.chat, tools: CHAT_TOOLS };
  const asked = (await api.chat.completions.create({ ...ask, messages: ASKING })).choices[0].message;
  const results = asked.tool_calls.map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: RESULTS[call.function.name],
  }));
  const answer = await api.chat.completions.create({ ...ask, messages: [...ASKING, asked, ...results] });
  same("text", answer.choices[0].message.content, TEXT);
}

async function embeddings(api, model) {
  for (const encoding_format of ["float", "base64", undefined]) {
    const vectors = await api.embeddings.create({ model: model.embed, input: ["one", "two"], encoding_format });
    same("vectors", vectors.data.map((vector) => vector.index), [0, 1]);
  }
}

async function models(api, model) {
  const listed = [];
  for await (const one of api.models.list()) listed.push(one.id);
  same("both are listed", [listed.includes(model.chat), listed.includes(model.embed)], [true, true]);
  same("one model", (await api.models.retrieve(model.chat)).id, model.chat);
}

await run("openai, Node, chat", MAKERS, {
  text,
  stream: async (api, model) => same("text", await gathered(pieces(api, model.chat)), TEXT),
  tools: async (api, model) => {
    const answer = await api.chat.completions.create({ model: model.chat, messages: ASKING, tools: CHAT_TOOLS });
    called(ofChat(answer.choices[0].message));
    same("finish reason", answer.choices[0].finish_reason, "tool_calls");
  },
  "tools streamed": async (api, model) => {
    const stream = api.chat.completions.stream({ model: model.chat, messages: ASKING, tools: CHAT_TOOLS });
    called(ofChat((await stream.finalChatCompletion()).choices[0].message));
  },
  "tool results": toolResults,
  object: async (api, model) => {
    const response_format = zodResponseFormat(Person, "person");
    const answer = await api.chat.completions.parse({ model: model.chat, messages: MESSAGES, response_format });
    person(answer.choices[0].message.parsed);
  },
  embeddings,
  models,
  refused: async (api, model) => {
    const error = await raises(isMissing, () => text(api, { chat: "no-such-model" }));
    same("code", error.code, "model_not_found");
    await raises(isServer, () => text(api, { chat: model.fails }));
    await raises(isServer, () => gathered(pieces(api, model.fails)));
  },
  "broken off": (api, model) => broken(isAny, () => pieces(api, model.breaks)),
  keyless: (api, model) => raises((error) => error.status === 401, () => text(api, model)),
});

const ITEM_TOOLS = TOOLS.map(([name, description, parameters]) => ({
  type: "function",
  name,
  description,
  parameters,
  strict: false,
}));
const input = "Count for me.";

async function said(api, model) {
  const answer = await api.responses.create({ model: model.chat, input, instructions: "Count." });
  same("text", answer.output_text, TEXT);
  ended(answer.status, "completed");
}

async function* deltas(api, model) {
  for await (const event of await api.responses.create({ model, input, stream: true })) {
    if (event.type === "response.output_text.delta") yield event.delta;
  }
}

const ofItems = (answer) =>
  answer.output
    .filter((item) => item.type === "function_call")
    .map((item) => [item.call_id, item.name, JSON.parse(item.arguments)]);

await run("openai, Node, responses", MAKERS, {
  text: said,
  stream: async (api, model) => {
    same("text", await gathered(deltas(api, model.chat)), TEXT);
    const answer = await api.responses.stream({ model: model.chat, input }).finalResponse();
    same("the final answer", answer.output_text, TEXT);
  },
  tools: async (api, model) =>
    called(ofItems(await api.responses.create({ model: model.chat, input: ASKING, tools: ITEM_TOOLS }))),
  "tools streamed": async (api, model) =>
    called(ofItems(await api.responses.stream({ model: model.chat, input: ASKING, tools: ITEM_TOOLS }).finalResponse())),
  "tool results": async (api, model) => {
    const ask = { model: model.chat, tools: ITEM_TOOLS };
    const asked = await api.responses.create({ ...ask, input: ASKING });
    const results = ofItems(asked).map(([call_id, name]) => ({
      type: "function_call_output",
      call_id,
      output: RESULTS[name],
    }));
    const answer = await api.responses.create({ ...ask, input: [...ASKING, ...asked.output, ...results] });
    same("text", answer.output_text, TEXT);
  },
  object: async (api, model) => {
    const format = zodTextFormat(Person, "person");
    person((await api.responses.parse({ model: model.chat, input: "Who?", text: { format } })).output_parsed);
  },
  refused: async (api, model) => {
    await raises(isMissing, () => said(api, { chat: "no-such-model" }));
    await raises(isServer, () => said(api, { chat: model.fails }));
    await raises(isServer, () => gathered(deltas(api, model.fails)));
  },
  "broken off": (api, model) => broken(isAny, () => deltas(api, model.breaks)),
  keyless: (api, model) => raises((error) => error.status === 401, () => said(api, model)),
});
