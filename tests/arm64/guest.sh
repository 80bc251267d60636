#!/usr/bin/env bash
# Boots Debian's kernels for 64-bit ARM in QEMU and passes messages through the relay inside them: a test of io_uring, TLS and
# the agent on ARM without an ARM machine. The guest has no disk, and no network except its loopback. `make test-arm64` calls
# it after a cross build. It takes minutes, because each instruction is translated, so it runs nightly and not for each
# change.
#
#   tests/arm64/guest.sh [KERNEL_IMAGE...]
#
# By default apt downloads Debian's cloud kernels, the newest of each series that it knows: of Debian 12 that is 6.1, the
# oldest version that the relay supports, and with bookworm-backports 6.12, too. Needs qemu-system-aarch64 (package
# qemu-system-arm), cpio, openssl, what unit.sh needs, and apt with the architecture: dpkg --add-architecture arm64. DIST is
# the folder with the programs (dist), TIMEOUT the time limit for a guest in seconds (900).
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

for command in qemu-system-aarch64 cpio openssl apt-get dpkg-deb; do
	command -v "$command" >/dev/null || die "$command is not here; the head of $0 names the packages"
done
for file in coralmux-{relay,agent,loadtest}-linux-aarch64 coralmux-{relay,agent}-linux-aarch64-static SHA256SUMS; do
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
	series=
	while read -r version; do
		upstream=${version%%-*}
		[[ ${upstream%.*} != "$series" ]] || continue
		series=${upstream%.*}
		image=$(apt-cache show "linux-image-cloud-arm64:arm64=$version" | sed -n 's/^Depends: \(linux-image-[^ ]*\).*/\1/p' | head -1)
		fetch "$image"
		kernels+=("$cache/$image"/boot/vmlinuz-*)
	done < <(apt-cache madison linux-image-cloud-arm64:arm64 | awk '{print $3}' | sort -rV)
	[[ ${#kernels[@]} -gt 0 ]] || die "apt knows no linux-image-cloud-arm64:arm64: dpkg --add-architecture arm64 && apt-get update"
fi

# A phone for the agent.
target=aarch64-unknown-linux-gnu
(cd "$root" && CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	cargo build --quiet --target "$target" -p coralmux-client --example end)

# The relay's certificate, and the authority that the clients check it against.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=authority \
	-keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=relay -keyout "$work/key.pem" -out "$work/request" 2>/dev/null
openssl x509 -req -in "$work/request" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 30 \
	-extfile <(echo subjectAltName=IP:127.0.0.1) -out "$work/cert.pem" 2>/dev/null

# The guest's whole file tree.
tree=$work/tree
mkdir -p "$tree"/{bin,lib,proc,sys,dev,tmp}
cp "$cache/busybox-static/bin/busybox" "$tree/bin/"
for library in ld-linux-aarch64.so.1 libc.so.6 libm.so.6 libgcc_s.so.1; do
	find "$cache/libc6" "$cache/libgcc-s1" -name "$library" -exec cp -L {} "$tree/lib/" \; -quit
	[[ -e $tree/lib/$library ]] || die "Debian's packages have no $library"
done
install -m 755 "$dist/coralmux-loadtest-linux-aarch64" "$tree/bin/coralmux-loadtest"
install -m 755 "${CARGO_TARGET_DIR:-$root/target}/$target/debug/examples/end" "$tree/bin/end"
mkdir "$tree/dist" "$tree/tls"
install -m 644 "$work"/{ca,cert,key}.pem "$tree/tls/"
# The script without a release's key, because nothing there could check a signature.
cp "$root/deploy/install.sh" "$dist"/{SHA256SUMS,coralmux-{relay,agent}-linux-aarch64{,-static},coralmux-relay.{service,socket,environment},coralmux-agent.{service,environment}} "$tree/dist/"
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
