# What tests/run and tests/prove share. Sourced from the project's directory.

results=()
failed=0

# step NAME COMMAND...: runs it, shows its time, and goes on after a failure.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        results+=("ok      $((SECONDS - start)) s  $name")
    else
        results+=("FAILED  $((SECONDS - start)) s  $name")
        failed=1
    fi
}

# summary: the result of each step; ends with failure if one failed.
summary() {
    printf '\n== summary, %s s in all\n' "$SECONDS"
    printf '%s\n' "${results[@]}"
    exit "$failed"
}

# need_tools: installs or names what is missing beside Rust.
need_tools() {
    local missing=() tool
    if ! command -v cargo >/dev/null; then
        echo "tests need Rust: https://rustup.rs" >&2
        exit 2
    fi
    # Debian has its programs of PostgreSQL by version.
    local postgres=(/usr/lib/postgresql/*/bin)
    for tool in python3:python3 curl:curl haproxy:haproxy taskset:util-linux flock:util-linux ip:iproute2 dnsmasq:dnsmasq-base cc:build-essential systemd-analyze:systemd initdb:postgresql promtool:prometheus; do
        PATH=$PATH:/usr/sbin:${postgres[-1]} command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} = 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "install ${missing[*]}" install_packages "${missing[@]}"
        [ "$failed" = 0 ] || summary
    else
        echo "tests need these packages: ${missing[*]}" >&2
        exit 2
    fi
}

install_packages() {
    # Servers among them are not to be started by that.
    apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}

# set_up_real_servers [vllm [others]]: with the clients, into a directory that outlives `cargo clean`.
set_up_real_servers() {
    export LOVABLE_REAL_SERVERS=${LOVABLE_REAL_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/lovable-tests}
    step "real servers in $LOVABLE_REAL_SERVERS" tests/real-servers/setup.sh "$LOVABLE_REAL_SERVERS" "$@"
    step "real clients beside them" tests/clients/setup.sh "$LOVABLE_REAL_SERVERS"
    [ "$failed" = 0 ] || summary
}
