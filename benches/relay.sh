#!/usr/bin/env bash
# Measures two figures of the relay, with one shard on one core and the generator on another:
#   - CPU time of a forwarded 256-byte message, 100 pairs with one in flight, alternating with a reference relay;
#   - user-space memory of an idle authenticated connection, over 8,000 connections.
#
#   benches/relay.sh                     against the reference that coralmux-loadtest brings
#   CEILING=path/to/binary benches/relay.sh   against another one, started with a port as its argument
#
# ROUNDS, SECONDS_EACH, PAIRS_IDLE, SERVER_CORE, GENERATOR_CORE and PORT override the defaults;
# RELAY and LOADTEST name existing binaries.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-11} SECONDS_EACH=${SECONDS_EACH:-1} PAIRS_IDLE=${PAIRS_IDLE:-4000}
SERVER_CORE=${SERVER_CORE:-0} GENERATOR_CORE=${GENERATOR_CORE:-1} PORT=${PORT:-17300}
TARGET_DIR=${CARGO_TARGET_DIR:-target}
if [ -z "${RELAY:-}" ] || [ -z "${LOADTEST:-}" ]; then
	cargo build --release --quiet -p coralmux-relay -p coralmux-loadtest
fi
RELAY=${RELAY:-$TARGET_DIR/release/coralmux-relay} LOADTEST=${LOADTEST:-$TARGET_DIR/release/coralmux-loadtest}
if [ -n "${CEILING:-}" ]; then reference=("$CEILING"); else reference=("$LOADTEST" reference); fi

work=$(mktemp -d)
started=()
stop() {
	for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	started=()
}
trap 'stop; rm -rf "$work"' EXIT
# Each connection needs a descriptor.
ulimit -n "$(ulimit -Hn)"

wait_for() { # PORT
	for _ in {1..100}; do
		if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
		sleep 0.05
	done
	echo "nothing listens on port $1" >&2
	cat "$work"/*.log >&2
	exit 1
}

start_relay() { # PORT
	taskset -c "$SERVER_CORE" "$RELAY" --addr "127.0.0.1:$1" --admin-key loadtest --db "$work/$RANDOM.db" --shards 1 \
		--phone-rate 0 --agent-rate 0 --stream-rate 0 --daily-quota 0 --monthly-quota 0 --register-rate 0 \
		--max-unauthenticated-per-address 0 --max-unauthenticated 0 --log-level warn >"$work/relay.log" 2>&1 &
	started+=($!)
	wait_for "$1"
}

start_reference() { # PORT
	taskset -c "$SERVER_CORE" "${reference[@]}" "$1" >"$work/reference.log" 2>&1 &
	started+=($!)
	wait_for "$1"
}

load() { taskset -c "$GENERATOR_CORE" "$LOADTEST" "$@"; }
show() { python3 -c "import json,sys; r=json.load(open(sys.argv[1])); $2" "$1"; }

echo "CPU of a forwarded message: 256 bytes, 100 pairs, one in flight; relay, then reference, $ROUNDS times"
start_relay "$PORT"
start_reference "$((PORT + 1))"
load pingpong --url "ws://127.0.0.1:$PORT/ws" --compare "ws://127.0.0.1:$((PORT + 1))/ws" --rounds "$ROUNDS" \
	--pairs 100 --bytes 256 --depth 1 --seconds "$SECONDS_EACH" --json "$work/cpu.json"
stop
show "$work/cpu.json" '
c = r["ratio"]["server_cpu_us_per_message"]
for a, b in r["rounds"]:
    print("  %.2f / %.2f us" % (a["figures"]["server_cpu_us_per_message"], b["figures"]["server_cpu_us_per_message"]),
          "(server cores %.2f / %.2f, others %.2f / %.2f)" % tuple(x["usage"][k] for k in ("server_cores", "others_cores") for x in (a, b)))
print("  ratio %.3f (median; each: %s)" % (c["median"], ", ".join(map(str, c["each"]))))'

echo "Memory of an idle authenticated connection, over $((PAIRS_IDLE * 2)) connections"
for server in relay reference; do
	"start_$server" "$PORT"
	load idle --url "ws://127.0.0.1:$PORT/ws" --pairs "$PAIRS_IDLE" --seconds 3 --json "$work/$server.json"
	stop
	show "$work/$server.json" "
f = r['figures']
print('  %-9s %.0f bytes RSS growth (with the tokens: %.0f); kernel slab of both ends %.0f bytes; CPU at rest %.2f%% of a core' %
      ('$server', f['rss_bytes_per_connection'], f['rss_bytes_per_connection_with_tokens'],
       f['kernel_slab_bytes_per_connection'], 100 * f['server_cores']))"
done
