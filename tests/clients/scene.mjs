// What the Node scripts here share: the scene that the test set up, and a row for each thing tried.
// scene.py says what LOVABLE_SCENE holds.

import { isDeepStrictEqual, inspect } from "node:util";
import { Agent, fetch as fetchWith } from "undici";

const SCENE = JSON.parse(process.env.LOVABLE_SCENE);
export const { socket: SOCKET, address: ADDRESS, text: TEXT, limit: LIMIT } = SCENE;
export const KEY = "any";
export const MESSAGES = [{ role: "user", content: "Count for me." }];
// A simulated model calls the tools that the last turn names.
export const ASKING = [{ role: "user", content: "Use weather and clock." }];
export const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
const one = (name) => ({ type: "object", properties: { [name]: { type: "string" } }, required: [name] });
// Name, description, schema of the arguments.
export const TOOLS = [
  ["weather", "Tells the weather of a city.", one("city")],
  ["clock", "Tells the time of a zone.", one("zone")],
];
export const RESULTS = { weather: "sunny", clock: "noon" };

// Node's fetch over the daemon's socket: what every client here takes.
const dispatcher = new Agent({ connect: { socketPath: SOCKET } });
export const fetch = (url, init) => fetchWith(url, { ...init, dispatcher });

export function same(what, found, wanted) {
  if (!isDeepStrictEqual(found, wanted)) throw new Error(`${what}: ${inspect(found)}, not ${inspect(wanted)}`);
}

// Checks calls of both tools: [id, name, arguments] each.
export function called(calls) {
  same("the tools called", calls.map(([, name]) => name), TOOLS.map(([name]) => name));
  same("ids of their own", new Set(calls.map(([id]) => id).filter(Boolean)).size, calls.length);
  calls.forEach(([, name, given], index) => {
    same(`arguments of ${name}`, Object.keys(given), Object.keys(TOOLS[index][2].properties));
    for (const value of Object.values(given)) same(`an argument of ${name} is text`, typeof value, "string");
  });
}

// How an answer ended, where the model ends by itself; a real one is cut short.
export function ended(found, wanted) {
  same("how it ended", found, LIMIT ? found : wanted);
}

export function person(found) {
  same("keys of the object", Object.keys(found).sort(), ["age", "name"]);
  same("their types", [typeof found.name, Number.isInteger(found.age)], ["string", true]);
}

// The error that `attempt` throws, which is what makes it pass.
export async function raises(test, attempt) {
  let found;
  try {
    found = await attempt();
  } catch (error) {
    if (test(error)) return error;
    throw new Error(`the wrong error: ${inspect(error)}`);
  }
  throw new Error(`no error, but ${inspect(found)}`);
}

// A stream that throws after the first words, never as if it were whole.
export async function broken(test, pieces) {
  let said = "";
  const error = await raises(test, async () => {
    for await (const piece of pieces()) said += piece;
    return said;
  });
  same("words came before it", said !== "" && TEXT.startsWith(said), true);
  return error;
}

export async function gathered(pieces) {
  let said = "";
  for await (const piece of pieces) said += piece;
  return said;
}

// Some clients never settle a promise after an error, and Node then ends without a word.
const PATIENCE = 15_000;
const inTime = (promise) => {
  let timer;
  const over = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no end in time")), PATIENCE);
  });
  return Promise.race([promise, over]).finally(() => clearTimeout(timer));
};

// Tries each feature with each kind; a missing one is what the client does not offer. Kinds at once, since the time
// goes into waiting for servers that fail.
export async function run(client, makers, features) {
  for (const way of SCENE.ways.filter((way) => makers[way])) {
    const api = makers[way]();
    const rows = await Promise.all(SCENE.kinds.map((model) => tried(api, model, features)));
    for (const row of rows.flat()) console.log(JSON.stringify({ client, way, ...row }));
  }
}

async function tried(api, model, features) {
  const rows = [];
  for (const feature of SCENE.features) {
    let [result, why] = ["-", null];
    if (features[feature]) {
      try {
        await inTime(features[feature](api, model));
        result = "ok";
      } catch (error) {
        [result, why] = ["failed", error instanceof Error ? `${error.name}: ${error.message}` : inspect(error)];
      }
    }
    rows.push({ kind: model.kind, feature, result, why });
  }
  return rows;
}
