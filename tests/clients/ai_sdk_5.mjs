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

const openai = makers(createOpenAI);

await tryOut({
  client: "AI SDK 5, openai (responses)",
  makers: openai,
  sdk,
  language,
  more: {
    embeddings: async (api, model) => {
      const { embeddings } = await ai.embedMany({ model: api.textEmbeddingModel(model.embed), values: ["one", "two"] });
      same("vectors", embeddings.length, 2);
    },
  },
});
await tryOut({ client: "AI SDK 5, openai (chat)", makers: openai, sdk, language: (api, model) => api.chat(model) });
await tryOut({ client: "AI SDK 5, anthropic", makers: makers(createAnthropic), sdk, language });
// It looks for tokens where only Groq's own streams have them.
await tryOut({ client: "AI SDK 5, groq", makers: makers(createGroq), sdk, language, counts: false });
