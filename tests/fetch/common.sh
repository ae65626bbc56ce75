# Sourced by the scripts in this folder. Each of them brings one third-party
# thing into $CACHE, says nothing and ends quickly when it is there already,
# and ends with 77 and a reason when a tool or the network is missing, so that
# a test step can pass the reason on as its own.

set -eu

ROOT=${ROOT:-$(cd "$(dirname "$0")/../.." && pwd)}
CACHE=${CACHE:-$ROOT/build/cache}
mkdir -p "$CACHE"

# Ends the script: what it is for cannot be had here.
skip() {
    echo "$*"
    exit 77
}

# need TOOL [HINT]: ends the script when TOOL is not installed.
need() {
    command -v "$1" >/dev/null 2>&1 || skip "$1 is not installed${2:+ ($2)}"
}

# fetch WHAT COMMAND...: runs a download; its output matters only when it fails.
fetch() {
    what=$1
    shift
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        skip "$what could not be fetched (no network?)"
    fi
    rm -f "$log"
}

# An unfinished folder next to its final name: a rename makes it whole at once.
scratch() {
    mktemp -d "$CACHE/.unfinished-XXXXXX"
}

# stamp FOLDER: the hash of its files, which tells whether what was built from them is of today.
stamp() {
    (cd "$1" && find . -type f -not -path './target/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)
}
