// The official `ollama` package.

import { Ollama } from "ollama";
import { ADDRESS, ASKING, MESSAGES, PERSON, RESULTS, TEXT, TOOLS } from "./scene.mjs";
import { broken, called, ended, fetch, gathered, person, raises, run, same } from "./scene.mjs";

const DEFINED = TOOLS.map(([name, description, parameters]) => ({
  type: "function",
  function: { name, description, parameters },
}));
const isError = (error) => error instanceof Error;

async function* pieces(api, model) {
  for await (const line of await api.chat({ model, messages: MESSAGES, stream: true })) yield line.message.content;
}

// Older servers give a call no id, and so this client has no field for one.
const calls = (messages) =>
  messages
    .flatMap((message) => message.tool_calls ?? [])
    .map((call, index) => [index + 1, call.function.name, call.function.arguments]);

await run(
  "ollama, Node",
  {
    socket: () => new Ollama({ host: "http://lovable", fetch }),
    tcp: () => new Ollama({ host: ADDRESS }),
  },
  {
    text: async (api, model) => {
      const answer = await api.chat({ model: model.chat, messages: MESSAGES });
      same("text", answer.message.content, TEXT);
      same("it is done", answer.done, true);
      ended(answer.done_reason, "stop");
      same("generated", (await api.generate({ model: model.chat, prompt: "Count for me." })).response, TEXT);
    },
    stream: async (api, model) => {
      same("text", await gathered(pieces(api, model.chat)), TEXT);
      let said = "";
      const stream = await api.generate({ model: model.chat, prompt: "Count for me.", stream: true });
      for await (const line of stream) said += line.response;
      same("generated", said, TEXT);
    },
    tools: async (api, model) =>
      called(calls([(await api.chat({ model: model.chat, messages: ASKING, tools: DEFINED })).message])),
    "tools streamed": async (api, model) => {
      const messages = [];
      const ask = { model: model.chat, messages: ASKING, tools: DEFINED, stream: true };
      for await (const line of await api.chat(ask)) messages.push(line.message);
      called(calls(messages));
    },
    "tool results": async (api, model) => {
      const asked = (await api.chat({ model: model.chat, messages: ASKING, tools: DEFINED })).message;
      const results = asked.tool_calls.map((call) => ({
        role: "tool",
        tool_name: call.function.name,
        content: RESULTS[call.function.name],
      }));
      const messages = [...ASKING, asked, ...results];
      const answer = await api.chat({ model: model.chat, messages, tools: DEFINED });
      same("text", answer.message.content, TEXT);
    },
    object: async (api, model) =>
      person(JSON.parse((await api.chat({ model: model.chat, messages: MESSAGES, format: PERSON })).message.content)),
    embeddings: async (api, model) => {
      const vectors = (await api.embed({ model: model.embed, input: ["one", "two"] })).embeddings;
      same("vectors", vectors.length, 2);
      const older = await api.embeddings({ model: model.embed, prompt: "one" });
      same("the older route", older.embedding.length, vectors[0].length);
    },
    models: async (api, model) => {
      const listed = (await api.list()).models.map((one) => one.model);
      for (const name of [model.chat, model.embed]) {
        same(`${name} is listed`, listed.includes(name) || listed.includes(`${name}:latest`), true);
      }
      same("what it can do", (await api.show({ model: model.chat })).capabilities.includes("completion"), true);
      await api.ps();
    },
    refused: async (api, model) => {
      const missing = (error) => error.status_code === 404;
      await raises(missing, () => api.chat({ model: "no-such-model", messages: MESSAGES }));
      await raises(isError, () => api.chat({ model: model.fails, messages: MESSAGES }));
      await raises(isError, () => gathered(pieces(api, model.fails)));
    },
    "broken off": (api, model) => broken(isError, () => pieces(api, model.breaks)),
  },
);
