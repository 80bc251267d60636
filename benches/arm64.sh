#!/usr/bin/env bash
# The instruction counts for 64-bit ARM: cross-compiles the cases and QEMU's plugin that counts them, and runs them in QEMU's
# user mode, without an ARM machine. `make bench-arm64` calls it.
#
#   benches/arm64.sh [--check | --accept]
#
# Needs qemu-aarch64 7.2 to 8.2 with plugins (Debian 12's package qemu-user), gcc-aarch64-linux-gnu, libc6-dev-arm64-cross,
# and the target: rustup target add aarch64-unknown-linux-gnu.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
folder=${CARGO_TARGET_DIR:-target}/$target/release
for command in qemu-aarch64 aarch64-linux-gnu-gcc; do
	command -v "$command" >/dev/null || {
		echo "bench-arm64: $command is not here; the head of $0 names the packages" >&2
		exit 1
	}
done

CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	cargo build --profile bench -p coralmux-instructions --target "$target"
# Of the machine that runs QEMU.
cc -Wall -Wextra -Werror -O2 -shared -fPIC -fvisibility=hidden -o "$folder/count.so" benches/instructions/count.c
exec qemu-aarch64 -L /usr/aarch64-linux-gnu "$folder/coralmux-instructions" "$@"
