// The AI SDK as Open Lovable pins it, with each of the providers that it makes.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGroq } from "@ai-sdk/groq";
import { createOpenAI } from "@ai-sdk/openai";
import * as ai from "ai";
import { z } from "zod";
import { tryOut } from "./ai_sdk.mjs";
import { ADDRESS, KEY, fetch, same } from "./scene.mjs";

const makers = (create) => ({
  socket: () => create({ baseURL: "http://lovable/v1", apiKey: KEY, fetch }),
  tcp: () => create({ baseURL: `${ADDRESS}/v1`, apiKey: KEY }),
});
const sdk = { ...ai, z };
const language = (api, model) => api(model);

await tryOut("AI SDK 5, openai (responses)", makers(createOpenAI), sdk, language, {
  embeddings: async (api, model) => {
    const { embeddings } = await ai.embedMany({ model: api.textEmbeddingModel(model.embed), values: ["one", "two"] });
    same("vectors", embeddings.length, 2);
  },
});
await tryOut("AI SDK 5, openai (chat)", makers(createOpenAI), sdk, (api, model) => api.chat(model), {});
await tryOut("AI SDK 5, anthropic", makers(createAnthropic), sdk, language, {});
await tryOut("AI SDK 5, groq", makers(createGroq), sdk, language, {});
