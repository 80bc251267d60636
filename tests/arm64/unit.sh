#!/usr/bin/env bash
# Runs the unit and property tests of the pure crates as built for 64-bit ARM in QEMU's user mode: whatever is compiled or
# computed otherwise there (vectors, ciphers, atomics, the signedness of char). `make test-arm64` calls it.
#
#   tests/arm64/unit.sh [ARGUMENT...]       arguments of the test programs, such as a part of a name
#
# Needs qemu-aarch64 (package qemu-user), gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, and the target: rustup target add
# aarch64-unknown-linux-gnu.
set -euo pipefail
cd "$(dirname "$0")/../.."

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# The core of Ampere's Altra.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu neoverse-n1 -L /usr/aarch64-linux-gnu"
# An emulated core is slow, and the long runs are those of `make test`.
export PROPTEST_CASES=${PROPTEST_CASES:-32}
exec cargo test --quiet --target aarch64-unknown-linux-gnu --lib \
	-p coralmux-proto -p coralmux-session -p coralmux-push -p coralmux-api -p coralmux-e2e -- "$@"
