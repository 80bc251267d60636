#!/usr/bin/env bash
# Adds to the programs of build-all.sh what a release has besides: an archive, and packages for Debian and Red Hat, for
# each architecture; then signs it all. `make release` calls it.
#
#   deploy/release.sh [FOLDER]      default: dist
#
# Needs dpkg-deb, rpmbuild (Debian's package rpm), and the keys that sign.sh names.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
dist=$(realpath "${1:-dist}")
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Of the last commit, so that the same sources make the same archives.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

declare -A summaries=(
	[relay]="Relay that joins phones and AI agents that both connect outbound"
	[agent]="Puts an AI server or a program at the other end of a phone"
)
# Of its settings in /etc, and of what it stores in /var/lib.
declare -A folders=([relay]=coralmux [agent]=coralmux-agent)
declare -A debian=([x86_64]=amd64 [aarch64]=arm64)

# What a package puts into the file tree $1: that of PART for ARCH.
tree() {
	local tree=$1 part=$2 arch=$3 unit
	install -D -m 755 "$dist/coralmux-$part-linux-$arch" "$tree/usr/bin/coralmux-$part"
	for unit in deploy/systemd/"coralmux-$part".{service,socket}; do
		[[ -e $unit ]] || continue
		install -D -m 644 "$unit" "$tree/usr/lib/systemd/system/${unit##*/}"
		sed -i 's|/usr/local/bin/|/usr/bin/|' "$tree/usr/lib/systemd/system/${unit##*/}"
	done
	install -D -m 600 "deploy/systemd/coralmux-$part.environment" "$tree/etc/${folders[$part]}/environment"
	install -D -m 644 LICENSE "$tree/usr/share/doc/coralmux-$part/copyright"
}

archive() {
	local arch=$1 name=coralmux-$version-linux-$1 part
	mkdir -p "$work/$name"
	for part in relay agent; do
		install -m 755 "$dist/coralmux-$part-linux-$arch" "$work/$name/coralmux-$part"
	done
	install -m 644 deploy/systemd/* LICENSE README.md CHANGELOG.md "$work/$name/"
	tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -c "$name" |
		gzip -n >"$dist/$name.tar.gz"
}

deb() {
	local part=$1 arch=$2 tree=$work/deb-$1-$2 script
	tree "$tree" "$part" "$arch"
	mkdir -p "$tree/DEBIAN"
	cat >"$tree/DEBIAN/control" <<-END
		Package: coralmux-$part
		Version: $version
		Architecture: ${debian[$arch]}
		Maintainer: The CoralMux developers <coralmux@users.noreply.github.com>
		Depends: libc6 (>= 2.34), libgcc-s1
		Section: net
		Priority: optional
		Homepage: https://github.com/coralmux/coralmux-relay
		Description: ${summaries[$part]}
	END
	echo "/etc/${folders[$part]}/environment" >"$tree/DEBIAN/conffiles"
	for script in postinst prerm postrm; do
		sed "s/@PART@/$part/; s/@FOLDER@/${folders[$part]}/g" "deploy/packages/$script" >"$tree/DEBIAN/$script"
		chmod 755 "$tree/DEBIAN/$script"
	done
	dpkg-deb --root-owner-group -Zgzip -z6 --build "$tree" "$dist/coralmux-${part}_${version}_${debian[$arch]}.deb" >/dev/null
}

rpm() {
	local part=$1 arch=$2 tree=$work/rpm-$1-$2
	tree "$tree" "$part" "$arch"
	rpmbuild --quiet -bb --target "$arch-linux" --define "_topdir $work/rpmbuild" --define "_rpmdir $work/rpms" \
		--define "part $part" --define "release_version $version" --define "summary ${summaries[$part]}" \
		--define "folder ${folders[$part]}" --define "tree $tree" "$root/deploy/packages/coralmux.spec"
	mv "$work/rpms/$arch/"*.rpm "$dist/"
}

for program in "$dist"/coralmux-relay-linux-*; do
	arch=${program##*-}
	[[ -n ${debian[$arch]:-} ]] || continue
	archive "$arch"
	for part in relay agent; do
		deb "$part" "$arch"
		rpm "$part" "$arch"
	done
done
deploy/sign.sh "$dist"
ls -l "$dist"
