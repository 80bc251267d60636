#!/usr/bin/env bash
# Starts a relay on this machine with its store in ./data, makes a token, and prints the two lines that make a message go
# from a phone to an agent. The relay stays in the foreground: Ctrl-C stops it.
#
#   clients/quickstart.sh RELAY_BINARY [FLAG...]      (make run calls it)
#
# ADDR (127.0.0.1:8080), DATA (./data) and VENV (./.venv) may be set in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."

relay=$1
shift
addr=${ADDR:-127.0.0.1:8080}
data=${DATA:-data}
venv=${VENV:-.venv}
host=${addr%:*}
url_host=${host:-127.0.0.1}:${addr##*:}

if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv" || {
        echo "python3 cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    }
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r clients/python/requirements.txt

# An admin key of this folder's own, so that the token below can be made. It never stands on a command line.
umask 077
mkdir -p "$data"
if [ -z "${RELAY_ADMIN_KEY:-}" ]; then
    [ -s "$data/quickstart-key" ] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' > "$data/quickstart-key"
    RELAY_ADMIN_KEY=$(cat "$data/quickstart-key")
fi
export RELAY_ADMIN_KEY

# In the background: waits for the relay below, makes a token and prints the lines. Ends with the relay.
"$venv/bin/python" clients/python/quickstart.py "http://$url_host" "$venv/bin/python" $$ &

exec "$relay" -addr "$addr" -db "$data/relay.db" "$@"
