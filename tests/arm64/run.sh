#!/usr/bin/env bash
# Boots a Debian kernel for 64-bit ARM in QEMU and passes messages through the relay inside it: a test of io_uring on ARM
# without an ARM machine. The guest has no disk, and no network except its loopback. `make test-arm64` calls it after a
# cross build. It takes minutes, because each instruction is translated, so it runs nightly and not for each change.
#
#   tests/arm64/run.sh [KERNEL_IMAGE...]
#
# By default apt downloads Debian's cloud kernel 6.1, the oldest version that the relay supports. Needs
# qemu-system-aarch64 (package qemu-system-arm), cpio, and apt with the architecture: dpkg --add-architecture arm64.
# DIST is the folder with the programs (dist), TIMEOUT the time limit for a guest in seconds (900).
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
dist=${DIST:-$root/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() {
	echo "test-arm64: $*" >&2
	exit 1
}

for command in qemu-system-aarch64 cpio apt-get dpkg-deb; do
	command -v "$command" >/dev/null || die "$command is not here; the head of $0 names the packages"
done
for file in coralmux-relay-linux-aarch64 coralmux-loadtest-linux-aarch64 SHA256SUMS; do
	[[ -e $dist/$file ]] || die "$dist/$file is not there: make build-all"
done

# Debian packages for arm64, unpacked into a cache and kept for the next run.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coralmux/arm64
fetch() {
	local package=$1 folder=$cache/$1
	if [[ ! -e $folder/done ]]; then
		mkdir -p "$cache"
		rm -rf "$folder"
		(cd "$work" && apt-get download -qq "$package:arm64") || die "apt has no $package:arm64: dpkg --add-architecture arm64 && apt-get update"
		dpkg-deb -x "$work/${package}_"*.deb "$folder"
		touch "$folder/done"
	fi
}

for package in busybox-static libc6 libgcc-s1; do
	fetch "$package"
done
kernels=("$@")
if [[ ${#kernels[@]} -eq 0 ]]; then
	image=$(apt-cache depends linux-image-cloud-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p' | head -1)
	[[ -n $image ]] || die "apt knows no linux-image-cloud-arm64:arm64: dpkg --add-architecture arm64 && apt-get update"
	fetch "$image"
	kernels=("$cache/$image"/boot/vmlinuz-*)
fi

# The guest's whole file tree.
tree=$work/tree
mkdir -p "$tree"/{bin,lib,proc,sys,dev,tmp}
cp "$cache/busybox-static/bin/busybox" "$tree/bin/"
for library in ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libgcc_s.so.1; do
	find "$cache/libc6" "$cache/libgcc-s1" -name "$library" -exec cp -L {} "$tree/lib/" \; -quit
	[[ -e $tree/lib/$library ]] || die "Debian's packages have no $library"
done
install -m 755 "$dist/coralmux-loadtest-linux-aarch64" "$tree/bin/coralmux-loadtest"
mkdir "$tree/dist"
# The script without a release's key, because nothing there could check a signature.
cp "$root/deploy/install.sh" "$dist"/{SHA256SUMS,coralmux-relay-linux-aarch64,coralmux-relay.{service,socket,environment}} "$tree/dist/"
install -m 755 init "$tree/init"
(cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/initramfs.gz"

failed=0
for kernel in "${kernels[@]}"; do
	echo "test-arm64: booting $kernel"
	# The core is that of Ampere's Altra, which Oracle's free machines have.
	timeout "${TIMEOUT:-900}" qemu-system-aarch64 -M virt -cpu neoverse-n1 -smp 2 -m 1536 -nographic -no-reboot \
		-nic none -kernel "$kernel" -initrd "$work/initramfs.gz" \
		-append "console=ttyAMA0 quiet panic=-1 rdinit=/init" </dev/null | tee "$work/console" || true
	if grep -q '^guest: ok' "$work/console"; then
		echo "test-arm64: ok: $kernel"
	else
		echo "test-arm64: FAILED: $kernel" >&2
		failed=1
	fi
done
exit "$failed"
