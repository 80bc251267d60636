#!/bin/sh
# Runs every fuzz target for SECONDS each (default: 10). Fails as soon as one of them finds something; the input is then
# in fuzz/artifacts.
set -eu
seconds=${1:-10}
cd "$(dirname "$0")/.."

# cargo-fuzz is installed beside the targets; its coverage flags need no nightly compiler.
PATH="$PWD/fuzz/target/tools/bin:$PATH"
export RUSTC_BOOTSTRAP=1
if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked --root fuzz/target/tools
fi

for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    echo "== $target, $seconds s"
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
