#!/bin/sh
# Installs, upgrades or removes the relay on this machine. It can be run again at any time.
#
#   install.sh [--from SOURCE] [--no-start]     install or upgrade
#   install.sh --rollback                       swap with the previous program; once more swaps back
#   install.sh --uninstall [--purge]            remove it; with --purge also the store and the settings
#
# SOURCE is a folder such as dist/, or an https URL under which the files of a release are. The default is the folder of
# this script if it has a release, else the newest release. In a pipe the script has no folder: it installs the newest
# release, whatever the current folder holds. All files are checked against the SHA256SUMS beside them.
#
# It needs root, sha256sum, and curl or wget for a URL. If systemd runs, the service is started, or restarted if
# something has changed; a new program that does not start is rolled back at once.
set -eu

release_url=https://github.com/coralmux/coralmux-relay/releases/latest/download
bin=/usr/local/bin/coralmux-relay
old=$bin.old
trial=$bin.trial
# For units that do not come from a distribution. /etc/systemd/system, drop-ins included, takes precedence.
units=/usr/local/lib/systemd/system
service=coralmux-relay.service
unit_files="coralmux-relay.service coralmux-relay.socket"
settings=/etc/coralmux

say() {
	echo "install: $*"
}

die() {
	echo "install: $*" >&2
	exit 1
}

systemd_runs() {
	[ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

architecture() {
	case $(uname -m) in
	x86_64 | amd64) echo x86_64 ;;
	aarch64 | arm64) echo aarch64 ;;
	*) die "there is no release for $(uname -m), only for x86-64 and 64-bit ARM" ;;
	esac
}

# Whether this kernel is 6.1 or newer. The relay's own preflight reports more.
kernel_is_new_enough() {
	kernel=$(uname -r)
	major=${kernel%%.*}
	minor=${kernel#*.}
	minor=${minor%%[!0-9]*}
	[ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 1 ]; }
}

# Whether the URL $1 leads to this machine. Anything before an @ is a user name, whatever it looks like, and characters
# that programs interpret differently are not allowed in such a URL.
leads_here() {
	case $1 in
	*[!A-Za-z0-9._:/~-]*) return 1 ;;
	esac
	authority=${1#http://}
	authority=${authority%%/*}
	[ "$authority" != 127.0.0.1 ] || return 0
	port=${authority#127.0.0.1:}
	[ "$port" != "$authority" ] || return 1
	case $port in
	'' | *[!0-9]*) return 1 ;;
	esac
}

# download URL FILE
download() {
	if command -v curl >/dev/null; then
		curl -fsSL --retry 3 --proto '=https,http' --proto-redir '=https' -o "$2" "$1"
	elif command -v wget >/dev/null; then
		wget -q -O "$2" "$1"
	else
		die "neither curl nor wget is here to fetch $1"
	fi
}

# fetch NAME: puts the source's file into the folder $work.
fetch() {
	case $from in
	https://*) download "$from/$1" "$work/$1" ;;
	http://*)
		leads_here "$from" || die "$from is not fetched: only https is safe"
		# Not through a proxy, which would resolve it to its own machine.
		(export no_proxy=127.0.0.1 NO_PROXY=127.0.0.1 && download "$from/$1" "$work/$1")
		;;
	*://*) die "$from is not fetched: only https is safe" ;;
	*) cp "$from/$1" "$work/$1" ;;
	esac || die "$from/$1 could not be had; nothing has been changed"
}

# check NAME: compares the file with its line in SHA256SUMS.
check() {
	grep -E "^[0-9a-f]{64} [ *]$1\$" "$work/SHA256SUMS" >"$work/line" || die "SHA256SUMS has no line about $1"
	(cd "$work" && sha256sum -c line >/dev/null 2>&1) ||
		die "$1 is not what SHA256SUMS says: the copy is damaged or somebody has changed it; nothing has been changed"
}

# place MODE FROM TO: replaces a file atomically, even while the old one is in use.
place() {
	cp "$2" "$3.new"
	chmod "$1" "$3.new"
	mv -f "$3.new" "$3"
}

restart() {
	systemctl daemon-reload
	systemctl restart "$service"
}

# The last lines of the service's log.
last_words() {
	journalctl -u "$service" -n 20 --no-pager -o cat 2>/dev/null || true
}

# Swaps the program and its units with the previous ones.
swap() {
	for name in "$bin" "$units/coralmux-relay.service" "$units/coralmux-relay.socket"; do
		[ -e "$name.old" ] || continue
		mv -f "$name" "$name.new"
		mv -f "$name.old" "$name"
		mv -f "$name.new" "$name.old"
	done
}

# keep FILE: keeps a copy beside it, for a rollback.
keep() {
	cp -p "$1" "$1.old.new"
	mv -f "$1.old.new" "$1.old"
}

# Initial settings; existing ones are not touched.
lay_settings() {
	[ ! -e "$settings/environment" ] || return 0
	mkdir -p "$settings"
	(
		umask 077
		cat >"$settings/environment" <<-'END'
			# Settings of the relay, read when it starts: each flag of `coralmux-relay --help` is CORALMUX_ and its name.
			#CORALMUX_ADDR=:8080
			#CORALMUX_TRUSTED_PROXY=127.0.0.1
			#CORALMUX_DOMAIN=relay.example.com
			#CORALMUX_REGISTRATION=off
		END
	)
	say "settings go into $settings/environment"
}

start() {
	systemctl daemon-reload
	systemctl enable --quiet "$service"
	if [ "$changed" = no ] && systemctl is-active --quiet "$service"; then
		say "nothing has changed, and it runs"
	elif restart; then
		say "it runs: systemctl status coralmux-relay"
	elif [ "$upgraded" = yes ]; then
		last_words >&2
		swap
		restart || say "the program before it does not start either"
		die "the new program did not start, so the one before it is back; the new one is kept as $old"
	else
		last_words >&2
		die "it did not start, and goes on trying where waiting can help: journalctl -u coralmux-relay has more"
	fi
}

install_relay() {
	program=coralmux-relay-linux-$(architecture)
	work=$(mktemp -d)
	trap 'rm -rf "$work" "$trial" "$trial.new"' EXIT
	trap 'exit 1' HUP INT TERM
	say "from $from"
	for name in SHA256SUMS "$program" $unit_files; do
		fetch "$name"
		[ "$name" = SHA256SUMS ] || check "$name"
	done
	mkdir -p "${bin%/*}" "$units"
	# Run from its final folder: folders for temporary files are often mounted noexec.
	place 755 "$work/$program" "$trial"
	version=$("$trial" --version 2>&1) ||
		die "$program does not run on this machine; nothing has been changed. It says: $version"
	kernel_is_new_enough || say "this kernel is $(uname -r), and the relay will want 6.1 or newer"

	changed=no upgraded=no
	if [ ! -e "$bin" ]; then
		changed=yes
		place 755 "$work/$program" "$bin"
		say "$version is $bin"
	elif ! cmp -s "$work/$program" "$bin"; then
		changed=yes upgraded=yes
		for name in $unit_files; do
			[ ! -e "$units/$name" ] || keep "$units/$name"
		done
		keep "$bin"
		place 755 "$work/$program" "$bin"
		say "$version is $bin; the one before it is kept as $old"
	else
		say "$version is $bin already"
	fi
	for name in $unit_files; do
		if ! cmp -s "$work/$name" "$units/$name"; then
			changed=yes
			place 644 "$work/$name" "$units/$name"
		fi
	done
	lay_settings
	if ! systemd_runs; then
		say "systemd does not run here: start $bin by what does"
	elif [ "$begin" = yes ]; then
		start
	else
		systemctl daemon-reload
		say "not started: systemctl enable --now coralmux-relay"
	fi
}

rollback() {
	[ -e "$old" ] || die "there is no $old to go back to"
	swap
	say "$("$bin" --version) is $bin again; the other is kept as $old"
	if systemd_runs; then
		restart || die "it did not start: journalctl -u coralmux-relay has more"
	fi
}

uninstall() {
	if systemd_runs; then
		for name in $unit_files; do
			systemctl disable --quiet --now "$name" 2>/dev/null || true
		done
	fi
	rm -f "$bin" "$old"
	for name in $unit_files; do
		rm -f "$units/$name" "$units/$name.old"
	done
	! systemd_runs || systemctl daemon-reload
	if [ "$purge" = yes ]; then
		# With DynamicUser= the store is under private, and lib/coralmux is a link to it.
		rm -rf "$settings" /var/lib/coralmux /var/lib/private/coralmux
		say "the relay, its settings and its store are gone"
	else
		say "the relay is gone; its store (/var/lib/coralmux) and settings ($settings) stay"
	fi
}

action=install from='' begin=yes purge=no
while [ $# -gt 0 ]; do
	case $1 in
	--from)
		[ $# -ge 2 ] || die "--from needs a folder or a URL"
		from=${2%/}
		shift
		;;
	--no-start) begin=no ;;
	--rollback) action=rollback ;;
	--uninstall) action=uninstall ;;
	--purge) purge=yes ;;
	-h | --help)
		sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
		exit 0
		;;
	*) die "unknown: $1 (--help tells what there is)" ;;
	esac
	shift
done
if [ -z "$from" ]; then
	from=$release_url
	# In a pipe, $0 is the shell's name, and the current folder is not trusted.
	if [ "${0##*/}" = install.sh ] && [ -f "$0" ] && [ -e "$(dirname "$0")/SHA256SUMS" ]; then
		from=$(dirname "$0")
	fi
fi
[ "$purge" = no ] || [ "$action" = uninstall ] || die "--purge goes with --uninstall"
[ "$(id -u)" -eq 0 ] || die "this needs root: sudo $0"

case $action in
install) install_relay ;;
rollback) rollback ;;
uninstall) uninstall ;;
esac
