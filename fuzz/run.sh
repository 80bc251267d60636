#!/bin/sh
# Builds the fuzz targets and runs each for SECONDS (default: 10). Fails as soon as one of them finds something; the input
# is then in fuzz/artifacts. With 0 it only builds them.
set -eu
seconds=${1:-10}
cd "$(dirname "$0")/.."

RUSTC_WORKSPACE_WRAPPER="$PWD/fuzz/rustc" cargo build -p coralmux-fuzz
[ "$seconds" -gt 0 ] || exit 0

for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target" "fuzz/artifacts/$target"
    echo "== $target, $seconds s"
    "${CARGO_TARGET_DIR:-target}/debug/$target" -artifact_prefix="fuzz/artifacts/$target/" "fuzz/corpus/$target" \
        "fuzz/seeds/$target" -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
