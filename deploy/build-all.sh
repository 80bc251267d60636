#!/usr/bin/env bash
# Builds what a release begins with in dist/: the programs for x86-64 and 64-bit ARM, relay and agent also as static programs
# for any distribution, the units, install.sh, and SHA256SUMS over all of them. `make build-all` calls it; release.sh makes
# the rest.
#
#   deploy/build-all.sh [TARGET...]     default: x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
#
# For each target it needs a Rust standard library and a C compiler:
#
#   rustup target add aarch64-unknown-linux-gnu; apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
#
# or, where rustup cannot download anything, Debian's own Rust:
#
#   dpkg --add-architecture arm64; apt update
#   apt install --no-install-recommends rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross
#
# RUSTC names another compiler, CARGO_BUILD_JOBS limits parallel jobs, DIST names a folder other than dist.
set -euo pipefail
cd "$(dirname "$0")/.."

dist=${DIST:-dist}
target_dir=${CARGO_TARGET_DIR:-target}
# The oldest C library that the programs must run with: Ubuntu 22.04 has 2.35, Oracle Linux 9 has 2.34.
glibc_max=2.34

die() {
	echo "build-all: $*" >&2
	exit 1
}

# The first compiler with a standard library for the target.
rustc_for() {
	local candidate libdir
	for candidate in ${RUSTC:+"$RUSTC"} rustc /usr/bin/rustc; do
		libdir=$("$candidate" --print target-libdir --target "$1" 2>/dev/null) || continue
		if compgen -G "$libdir/libstd-*.rlib" >/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	die "no Rust standard library for $1 here; the head of $0 says how to get one"
}

# The C compiler for the target, and the prefix of its tools.
tools_for() {
	local triple=${1/-unknown/}
	if [[ $1 == "$(uname -m)"-* ]]; then
		echo ""
	elif command -v "$triple-gcc" >/dev/null; then
		echo "$triple-"
	else
		die "no C compiler for $1 here (${triple}-gcc); the head of $0 says how to get one"
	fi
}

# The programs of this source tree, and those that are also linked statically.
programs=(coralmux-relay coralmux-agent coralmux-loadtest)
static_programs=(coralmux-relay coralmux-agent)

# place PROGRAM NAME: puts what was built last into dist under this name.
place() {
	local file=$dist/$2 needed
	install -m 755 "$target_dir/$target/release/$1" "$file"
	needed=$("${tools}objdump" -T "$file" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1 || true)
	echo "$file: $(stat -c %s "$file") bytes, needs ${needed:-nothing}"
	if [[ $2 == *-static ]]; then
		! "${tools}readelf" -d -l "$file" | grep -qE 'NEEDED|INTERP' || die "$file is not static"
		return
	fi
	[[ $(printf '%s\n' "${needed#GLIBC_}" "$glibc_max" | sort -V | tail -1) == "$glibc_max" ]] ||
		die "$file needs $needed, newer than $glibc_max: build it on an older system"
}

build() {
	local target=$1 arch=${1%%-*} upper=${1//-/_} rustc tools program lookup
	rustc=$(rustc_for "$target")
	tools=$(tools_for "$target")
	echo "$target: $("$rustc" --version), ${tools}gcc $("${tools}gcc" -dumpfullversion)"
	# No local folders in the program: paths in its messages start at the crate. Not as RUSTFLAGS, which would replace the
	# flags of .cargo/config.toml.
	local remap="'--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo', '--remap-path-prefix=$PWD=/coralmux'"
	local options=(--release --locked --target "$target" --config "target.$target.rustflags=[$remap]")
	export RUSTC="$rustc" CARGO_PROFILE_RELEASE_STRIP=debuginfo
	export "CC_$upper=${tools}gcc" "CARGO_TARGET_${upper^^}_LINKER=${tools}gcc"
	cargo build "${options[@]}" "${programs[@]/#/--package=}" --bins
	for program in "${programs[@]}"; do
		place "$program" "$program-linux-$arch"
	done
	# The same crates, linked anew with the C library in the program.
	lookup=$(realpath "$target_dir")/$target/lookup.o
	"${tools}gcc" -O2 -Wall -Werror -c -o "$lookup" deploy/static/lookup.c
	for program in "${static_programs[@]}"; do
		cargo rustc "${options[@]}" -p "$program" --bin "$program" -- -C target-feature=+crt-static -C link-arg="$lookup"
		place "$program" "$program-linux-$arch-static"
	done
}

targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu)
mkdir -p "$dist"
for target in "${targets[@]}"; do
	build "$target"
done

install -m 755 deploy/oracle-cloud/setup.sh "$dist/"
install -m 644 deploy/systemd/* "$dist/"
deploy/sign.sh "$dist"
cat "$dist/SHA256SUMS"
