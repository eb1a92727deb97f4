// What is tried with the AI SDK, in whatever version and through whatever provider.

import { ASKING, LIMIT, MESSAGES, RESULTS, TEXT, TOOLS, broken, called, ended, gathered, person, raises, run, same } from "./scene.mjs";

const prompt = MESSAGES[0].content;
const asking = ASKING[0].content;
const maxOutputTokens = LIMIT ?? undefined;

// `sdk` is the module of a version, `language(api, model)` makes a language model, `more` is what only some providers
// have, and `counts` whether the provider reads the tokens of a stream.
export async function tryOut({ client, makers, sdk, language, more, counts = true }) {
  const { generateText, streamText, generateObject, streamObject, tool, jsonSchema, z } = sdk;
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const tools = Object.fromEntries(
    TOOLS.map(([name, description, schema]) => [name, tool({ description, inputSchema: jsonSchema(schema) })]),
  );
  const calls = (found) => found.map((call) => [call.toolCallId, call.toolName, call.input]);

  // The text stream of some versions swallows errors; the full stream has them as parts.
  async function* pieces(model) {
    for await (const part of streamText({ model, prompt, maxOutputTokens, maxRetries: 0, onError() {} }).fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") yield part.text;
    }
  }
  const isMissing = (error) => error.statusCode === 404;
  const isServer = (error) => (error.lastError ?? error).statusCode >= 500;

  await run(client, makers, {
    text: async (api, model) => {
      const answer = await generateText({ model: language(api, model.chat), prompt, maxOutputTokens, system: "Count." });
      same("text", answer.text, TEXT);
      ended(answer.finishReason, "stop");
      same("tokens counted", answer.usage.outputTokens > 0, true);
    },
    stream: async (api, model) => {
      same("text", await gathered(pieces(language(api, model.chat))), TEXT);
      const answer = streamText({ model: language(api, model.chat), prompt, maxOutputTokens });
      same("text of the text stream", await gathered(answer.textStream), TEXT);
      ended(await answer.finishReason, "stop");
      same("tokens counted", (await answer.usage).outputTokens > 0, counts);
    },
    tools: async (api, model) => {
      const answer = await generateText({ model: language(api, model.chat), prompt: asking, tools });
      called(calls(answer.toolCalls));
      same("finish reason", answer.finishReason, "tool-calls");
    },
    "tools streamed": async (api, model) => {
      const answer = streamText({ model: language(api, model.chat), prompt: asking, tools });
      await answer.consumeStream();
      called(calls(await answer.toolCalls));
      same("finish reason", await answer.finishReason, "tool-calls");
    },
    "tool results": async (api, model) => {
      const asked = await generateText({ model: language(api, model.chat), prompt: asking, tools });
      const content = asked.toolCalls.map(({ toolCallId, toolName }) => ({
        type: "tool-result",
        toolCallId,
        toolName,
        output: { type: "text", value: RESULTS[toolName] },
      }));
      const messages = [...ASKING, ...asked.response.messages, { role: "tool", content }];
      same("text", (await generateText({ model: language(api, model.chat), messages, tools })).text, TEXT);
    },
    object: async (api, model) => {
      person((await generateObject({ model: language(api, model.chat), schema: Person, prompt })).object);
      const answer = streamObject({ model: language(api, model.chat), schema: Person, prompt });
      for await (const part of answer.partialObjectStream) same("a part of it", typeof part, "object");
      person(await answer.object);
    },
    refused: async (api, model) => {
      await raises(isMissing, () => generateText({ model: language(api, "no-such-model"), prompt }));
      await raises(isServer, () => generateText({ model: language(api, model.fails), prompt, maxRetries: 0 }));
      await raises(isServer, () => gathered(pieces(language(api, model.fails))));
    },
    // Some versions hand over the error's body as it came, not as an Error.
    "broken off": (api, model) => broken((error) => error != null, () => pieces(language(api, model.breaks))),
    ...more,
  });
}
