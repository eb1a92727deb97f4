// The current AI SDK with its provider for OpenAI-compatible servers.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { z } from "zod";
import { tryOut } from "./ai_sdk.mjs";
import { ADDRESS, KEY, fetch, same } from "./scene.mjs";

const settings = { name: "lovable", apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true };

await tryOut({
  client: "AI SDK 7, openai-compatible",
  makers: {
    socket: () => createOpenAICompatible({ ...settings, baseURL: "http://lovable/v1", fetch }),
    tcp: () => createOpenAICompatible({ ...settings, baseURL: `${ADDRESS}/v1` }),
  },
  sdk: { ...ai, z },
  language: (api, model) => api.chatModel(model),
  more: {
    embeddings: async (api, model) => {
      const { embeddings } = await ai.embedMany({ model: api.embeddingModel(model.embed), values: ["one", "two"] });
      same("vectors", embeddings.length, 2);
    },
  },
});
