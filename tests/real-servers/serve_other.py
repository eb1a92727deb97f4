#!/usr/bin/env python3
"""Run one of the servers beside llama.cpp and vLLM, on loopback.

It prints "ready http://127.0.0.1:PORT" once the server lists models. When this
script ends or is killed, the server is killed with it.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PR_SET_PDEATHSIG = 1
# A key of no worth, for who wants one.
KEY = "of-no-worth"


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def llamacpppython(args, directory):
    return ["-m", "llama_cpp.server", "--model", args.model, "--model_alias", args.alias,
            "--n_ctx", "4096", "--n_threads", "1", "--host", "127.0.0.1", "--port", args.port], {}


def hub(args, directory):
    """A cache of models with this one in it, under the name `args.alias`: it has a slash."""
    repo = directory / f"models--{args.alias.replace('/', '--')}"
    for name in "refs", "snapshots", "blobs":
        (repo / name).mkdir(parents=True)
    (repo / "refs/main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).symlink_to(args.model)
    return {"HF_HUB_CACHE": str(directory), "HF_HUB_OFFLINE": "1"}


def transformers(args, directory):
    more = str(Path(sys.prefix).parent / "transformers")
    command = [str(Path(sys.prefix) / "bin/transformers"), "serve", args.alias, "--device", "cpu",
               "--host", "127.0.0.1", "--port", args.port]
    return command, hub(args, directory) | {"PYTHONPATH": more}


def mlxlm(args, directory):
    # Without any cache its list is an empty answer.
    environment = {"HF_HUB_CACHE": str(directory), "HF_HUB_OFFLINE": "1"}
    return ["-m", "mlx_lm.server", "--model", args.model, "--host", "127.0.0.1", "--port", args.port], environment


def litellm(args, directory):
    behind = {"model": f"openai/{args.behind_alias}", "api_base": f"{args.behind}/v1", "api_key": KEY}
    config = directory / "config.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": args.alias, "litellm_params": behind}]}))
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True",
                   "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    command = [str(Path(sys.prefix) / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1",
               "--port", args.port]
    return command, environment


def sglangrouter(args, directory):
    return ["-m", "sglang_router.launch_router", "--backend", "openai", "--worker-urls", args.behind,
            "--host", "127.0.0.1", "--port", args.port, "--prometheus-port", str(int(args.port) + 1)], {}


def openwebui(args, directory):
    environment = {
        "DATA_DIR": str(directory), "WEBUI_AUTH": "False", "WEBUI_SECRET_KEY": KEY, "HF_HUB_OFFLINE": "1",
        "ENABLE_OLLAMA_API": "False", "OPENAI_API_BASE_URLS": f"{args.behind}/v1", "OPENAI_API_KEYS": KEY,
        "RAG_EMBEDDING_ENGINE": "openai", "BYPASS_EMBEDDING_AND_RETRIEVAL": "True",
    }
    command = [str(Path(sys.prefix) / "bin/open-webui"), "serve", "--host", "127.0.0.1", "--port", args.port]
    return command, environment


SERVERS = {it.__name__: it for it in (llamacpppython, transformers, mlxlm, litellm, sglangrouter, openwebui)}


def asked(url, body=None, token=None):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def is_ready(kind, url, key_file):
    try:
        if kind != "openwebui":
            return bool(asked(f"{url}/v1/models")["data"])
        # Somebody has to come in, and then has a key for everything else.
        token = asked(f"{url}/api/v1/auths/signin", b'{"email": "", "password": ""}')["token"]
        Path(key_file).write_text(token)
        Path(key_file).chmod(0o600)
        return bool(asked(f"{url}/api/models", token=token)["data"])
    except (OSError, ValueError, KeyError):
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=SERVERS)
    parser.add_argument("--port", required=True)
    parser.add_argument("--alias", required=True, help="the model's name on the API")
    parser.add_argument("--model", help="a GGUF file or a Hugging Face model directory")
    parser.add_argument("--behind", help="the base URL of the server behind a gateway")
    parser.add_argument("--behind-alias", help="the model's name there")
    parser.add_argument("--key-file", help="where a key goes that callers need")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        command, environment = SERVERS[args.kind](args, Path(directory))
        if command[0].startswith("-"):
            command = [sys.executable, *command]
        # Open WebUI takes programs out of the folder above the one that it is started in.
        folder = Path(directory) / "run"
        folder.mkdir()
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, preexec_fn=die_with_parent,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for sign in signal.SIGTERM, signal.SIGINT:
            signal.signal(sign, lambda number, frame: sys.exit(0))
        url = f"http://127.0.0.1:{args.port}"
        try:
            while server.poll() is None and not is_ready(args.kind, url, args.key_file):
                time.sleep(0.5)
            if server.poll() is None:
                print(f"ready {url}", flush=True)
            sys.exit(server.wait())
        finally:
            server.kill()


if __name__ == "__main__":
    main()
