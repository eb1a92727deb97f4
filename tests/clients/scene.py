"""What the Python scripts here share: the scene that the test set up, and a row for each thing tried.

LOVABLE_SCENE is JSON: `socket` and `address` of the daemon, the `ways` to try
(`socket`, `tcp`, or `environment`, which is the client's own variables and
nothing else), the `features` to try, the `text` that every model says, the
`limit` of tokens where it would not end by itself, and of each kind of server
the names of its models: `chat`, `embed`, `breaks` (in the middle of each stream)
and `fails` (before each answer).
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor

SCENE = json.loads(os.environ["LOVABLE_SCENE"])
SOCKET, ADDRESS, TEXT = SCENE["socket"], SCENE["address"], SCENE["text"]
# The tokens of an answer that does not end by itself; nothing where it does.
LIMIT = SCENE["limit"]
KEY = "any"
MESSAGES = [{"role": "user", "content": "Count for me."}]
# A simulated model calls the tools that the last turn names.
ASKING = [{"role": "user", "content": "Use weather and clock."}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ZONE = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
# Name, description, schema of the arguments.
TOOLS = [("weather", "Tells the weather of a city.", CITY), ("clock", "Tells the time of a zone.", ZONE)]
RESULTS = {"weather": "sunny", "clock": "noon"}


class Model:
    """The names of one kind's models."""

    def __init__(self, names):
        self.__dict__.update(names)


def same(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def called(calls):
    """Checks calls of both tools: (id, name, arguments) each."""
    same("the tools called", [name for _, name, _ in calls], [name for name, _, _ in TOOLS])
    ids = [id for id, _, _ in calls]
    same("ids of their own", len({id for id in ids if id}), len(calls))
    for (_, name, arguments), (_, _, schema) in zip(calls, TOOLS):
        same(f"arguments of {name}", sorted(arguments), sorted(schema["properties"]))
        for value in arguments.values():
            same(f"an argument of {name} is text", isinstance(value, str), True)


def ended(found, wanted):
    """How an answer ended, where the model ends by itself; a real one is cut short."""
    same("how it ended", found, found if LIMIT else wanted)


def person(found):
    same("keys of the object", sorted(found), ["age", "name"])
    same("their types", (type(found["name"]), type(found["age"])), (str, int))


def raises(error, attempt):
    """The error that `attempt` raises, which is what makes it pass."""
    try:
        found = attempt()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}, but {found!r}")


def broken(error, pieces):
    """A stream that raises after the first words, never as if it were whole."""
    said = []
    raised = raises(error, lambda: said.extend(pieces()))
    same("words came before it", TEXT.startswith("".join(said)) and bool(said), True)
    return raised


def run(client, makers, features):
    """Tries each feature with each kind; a missing one is what the client does not offer."""
    for way in (way for way in SCENE["ways"] if way in makers):
        api = makers[way]()
        # Kinds at once, since the time goes into waiting for servers that fail.
        with ThreadPoolExecutor() as pool:
            for rows in pool.map(lambda names: list(tried(api, names, features)), SCENE["kinds"]):
                for row in rows:
                    print(json.dumps({"client": client, "way": way} | row), flush=True)


def tried(api, names, features):
    for feature in SCENE["features"]:
        result, why = "-", None
        if features.get(feature):
            try:
                features[feature](api, Model(names))
                result = "ok"
            except Exception as error:
                result, why = "failed", f"{type(error).__name__}: {error}"
        yield {"kind": names["kind"], "feature": feature, "result": result, "why": why}
