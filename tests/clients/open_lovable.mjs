// The calls that Open Lovable makes: its providers from its variables, its model ids, and the arguments of its two
// routes as they stand there, those too that this AI SDK no longer knows.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGroq } from "@ai-sdk/groq";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, streamText } from "ai";
import { z } from "zod";
import { TEXT, ended, gathered, run, same } from "./scene.mjs";

const { env } = process;
const PROVIDERS = [
  ["openai/gpt-5", "gpt-5", () => createOpenAI({ apiKey: env.OPENAI_API_KEY, baseURL: env.OPENAI_BASE_URL }), "OPENAI_BASE_URL"],
  [
    "anthropic/claude-sonnet-4-20250514",
    "claude-sonnet-4-20250514",
    () => createAnthropic({ apiKey: env.ANTHROPIC_API_KEY, baseURL: env.ANTHROPIC_BASE_URL }),
    "ANTHROPIC_BASE_URL",
  ],
  [
    "moonshotai/kimi-k2-instruct-0905",
    "moonshotai/kimi-k2-instruct-0905",
    () => createGroq({ apiKey: env.GROQ_API_KEY, baseURL: env.GROQ_BASE_URL }),
    "GROQ_BASE_URL",
  ],
];

const searchPlan = z.object({
  editType: z.enum(["UPDATE_COMPONENT", "ADD_FEATURE", "FIX_ISSUE", "UPDATE_STYLE"]).describe("The type of edit"),
  reasoning: z.string().describe("Explanation of the search strategy"),
  searchTerms: z.array(z.string()).describe("Specific text to search for"),
  regexPatterns: z.array(z.string()).optional().describe("Regex patterns for finding code structures"),
  fileTypesToSearch: z.array(z.string()).default([".jsx", ".tsx"]).describe("File extensions to search"),
  expectedMatches: z.number().min(1).max(10).default(1).describe("Expected number of matches"),
  fallbackSearch: z
    .object({ terms: z.array(z.string()), patterns: z.array(z.string()).optional() })
    .optional()
    .describe("Backup search if primary fails"),
});
const messages = [
  { role: "system", content: "You write React applications." },
  { role: "user", content: "Make a page." },
];

for (const [model, id, create] of PROVIDERS.filter(([, , , variable]) => env[variable])) {
  await run(`Open Lovable, ${model}`, { environment: create }, {
    stream: async (client) => {
      const options = { model: client(id), messages, maxTokens: 8192, stopSequences: [] };
      if (model.startsWith("openai/gpt-5")) {
        options.experimental_providerMetadata = { openai: { reasoningEffort: "high" } };
      } else {
        options.temperature = 0.7;
      }
      const result = await streamText(options);
      same("text", await gathered(result.textStream), TEXT);
      ended(await result.finishReason, "stop");
    },
    object: async (client) => {
      const { object } = await generateObject({ model: client(id), schema: searchPlan, messages });
      same("an edit type", typeof object.editType, "string");
    },
  });
}
