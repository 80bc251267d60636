#!/bin/sh
# Installs, upgrades or removes the relay, the agent or both on this machine. It can be run again at any time.
#
#   install.sh [relay] [agent] [--from SOURCE] [--no-start]     install or upgrade
#   install.sh [relay] [agent] --rollback                       swap with the previous program; once more swaps back
#   install.sh [relay] [agent] --uninstall [--purge]            remove it; with --purge also what it stored and its settings
#
# Without a name: what is installed already, else the relay. SOURCE is a folder such as dist/, or an https URL under which
# the files of a release are. The default is the folder of this script if it has a release, else the newest release. In a
# pipe the script has no folder: it installs the newest release, whatever the current folder holds.
#
# What is installed is what SHA256SUMS says, and that file has to be signed with the key of this script: openssl or
# minisign checks that. A script that was built without a key installs from a folder only.
#
# Where a program does not run, because the C library is missing or too old, the static one of the release is installed.
#
# It needs root, sha256sum, and for a URL curl or wget, and openssl or minisign. If systemd runs, the service is started,
# or restarted if something has changed; a new program that does not start is rolled back at once.

# In braces, so that nothing is done before the last line is here.
{
set -eu

release_url=https://github.com/coralmux/coralmux-relay/releases/latest/download
# The public keys of releases, which deploy/sign.sh fills in: ECDSA P-256 for openssl (base64 of SubjectPublicKeyInfo), and
# that of minisign.
openssl_key=
minisign_key=

# For units that do not come from a distribution. /etc/systemd/system, drop-ins included, takes precedence.
units=/usr/local/lib/systemd/system
parts="relay agent"

say() {
	echo "install: $*"
}

die() {
	echo "install: $*" >&2
	exit 1
}

# about PART: what it consists of.
about() {
	name=coralmux-$1
	bin=/usr/local/bin/$name
	old=$bin.old
	trial=$bin.trial
	service=$name.service
	case $1 in
	relay)
		unit_files="coralmux-relay.service coralmux-relay.socket"
		settings=/etc/coralmux
		store=coralmux
		;;
	agent)
		unit_files=coralmux-agent.service
		settings=/etc/coralmux-agent
		store=coralmux-agent
		;;
	esac
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
		# BusyBox's does not look at certificates; the signature makes up for it.
		wget -q -O "$2" "$1"
	else
		die "neither curl nor wget is here to fetch $1"
	fi
}

# fetch FILE: puts the source's file into the folder $work.
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

# fetch_sums: gets SHA256SUMS, and checks that it was signed with the key of a release.
fetch_sums() {
	if [ -z "$openssl_key" ]; then
		case $from in
		*://*) die "this script was built without a release's key, so it installs from a folder only, not from $from" ;;
		esac
		fetch SHA256SUMS
		return
	fi
	genuine=no
	if command -v openssl >/dev/null; then
		fetch SHA256SUMS
		fetch SHA256SUMS.sig
		printf -- '-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n' "$openssl_key" >"$work/key.pem"
		! openssl dgst -sha256 -verify "$work/key.pem" -signature "$work/SHA256SUMS.sig" "$work/SHA256SUMS" \
			>/dev/null 2>&1 || genuine=yes
	elif command -v minisign >/dev/null; then
		fetch SHA256SUMS
		fetch SHA256SUMS.minisig
		! minisign -V -q -P "$minisign_key" -m "$work/SHA256SUMS" >/dev/null 2>&1 || genuine=yes
	else
		die "neither openssl nor minisign is here to check the release's signature: install one of them and try again"
	fi
	[ "$genuine" = yes ] ||
		die "the signature of SHA256SUMS is not that of a release: the copy is damaged or somebody has changed it; nothing has been changed"
}

# check FILE: compares the file with its line in SHA256SUMS.
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
	for file in "$bin" $(for unit in $unit_files; do echo "$units/$unit"; done); do
		[ -e "$file.old" ] || continue
		mv -f "$file" "$file.new"
		mv -f "$file.old" "$file"
		mv -f "$file.new" "$file.old"
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
	place 600 "$work/$name.environment" "$settings/environment"
	say "settings go into $settings/environment"
}

# Whether PART has what it cannot start without: an agent has to know its relay.
is_set_up() {
	[ "$1" = relay ] || grep -q '^CORALMUX_AGENT_RELAY=.' "$settings/environment"
}

start() {
	systemctl daemon-reload
	systemctl enable --quiet "$service"
	if [ "$changed" = no ] && systemctl is-active --quiet "$service"; then
		say "nothing has changed, and it runs"
	elif restart; then
		say "it runs: systemctl status $name"
	elif [ "$upgraded" = yes ]; then
		last_words >&2
		swap
		restart || say "the program before it does not start either"
		die "the new program did not start, so the one before it is back; the new one is kept as $old"
	else
		last_words >&2
		die "it did not start, and goes on trying where waiting can help: journalctl -u $name has more"
	fi
}

# next_steps PART: what is left to do.
next_steps() {
	if [ "$1" = relay ]; then
		say "next: $name doctor                       # does this machine have what a relay needs?"
		say "      edit $settings/environment   # a domain for TLS; then systemctl restart $name"
		say "      install.sh agent                         # where your AI runs, here or elsewhere"
	else
		say "next: edit $settings/environment   # the relay's address, and what answers"
		say "      systemctl restart $name"
		say "      XDG_STATE_HOME=/var/lib $name link --relay wss://...   # the link for the phone"
	fi
}

# runs PART: whether the program of $work runs here: from its final folder, because those for temporary files are often
# mounted noexec.
runs() {
	about "$1"
	mkdir -p "${bin%/*}" "$units"
	place 755 "$work/$name" "$trial"
	version=$("$trial" --version 2>&1)
}

# fetch_program PART [STATIC]: puts its program into $work, under its name.
fetch_program() {
	about "$1"
	program=$name-linux-$arch${2:-}
	fetch "$program"
	check "$program"
	mv -f "$work/$program" "$work/$name"
}

# try_out PART: leaves a program in $work that runs here.
try_out() {
	! runs "$1" || return 0
	if grep -qE "^[0-9a-f]{64} [ *]$program-static\$" "$work/SHA256SUMS"; then
		say "$program does not run here, so it is the static one. It said: $version"
		fetch_program "$1" -static
		! runs "$1" || return 0
	fi
	die "$program does not run on this machine; nothing has been changed. It says: $version"
}

install_part() {
	about "$1"
	version=$("$trial" --version 2>&1)
	changed=no upgraded=no
	if [ ! -e "$bin" ]; then
		changed=yes
		place 755 "$work/$name" "$bin"
		say "$version is $bin"
	elif ! cmp -s "$work/$name" "$bin"; then
		changed=yes upgraded=yes
		for unit in $unit_files; do
			[ ! -e "$units/$unit" ] || keep "$units/$unit"
		done
		keep "$bin"
		place 755 "$work/$name" "$bin"
		say "$version is $bin; the one before it is kept as $old"
	else
		say "$version is $bin already"
	fi
	for unit in $unit_files; do
		if ! cmp -s "$work/$unit" "$units/$unit"; then
			changed=yes
			place 644 "$work/$unit" "$units/$unit"
		fi
	done
	lay_settings
	if ! systemd_runs; then
		say "systemd does not run here: start $bin by what does"
	elif [ "$begin" = yes ] && is_set_up "$1"; then
		start
	else
		systemctl daemon-reload
		say "not started: systemctl enable --now $name"
	fi
	[ "$upgraded" = yes ] || [ "$changed" = no ] || next_steps "$1"
}

install_parts() {
	arch=$(architecture)
	work=$(mktemp -d)
	trap 'rm -rf "$work" /usr/local/bin/coralmux-relay.trial* /usr/local/bin/coralmux-agent.trial*' EXIT
	trap 'exit 1' HUP INT TERM
	say "from $from"
	fetch_sums
	for part in $chosen; do
		about "$part"
		fetch_program "$part"
		for file in "$name.environment" $unit_files; do
			fetch "$file"
			check "$file"
		done
	done
	for part in $chosen; do
		try_out "$part"
	done
	case " $chosen " in
	*" relay "*) kernel_is_new_enough || say "this kernel is $(uname -r), and the relay will want 6.1 or newer" ;;
	esac
	for part in $chosen; do
		install_part "$part"
	done
}

rollback() {
	about "$1"
	[ -e "$old" ] || die "there is no $old to go back to"
	swap
	say "$("$bin" --version) is $bin again; the other is kept as $old"
	if systemd_runs; then
		restart || die "it did not start: journalctl -u $name has more"
	fi
}

uninstall() {
	about "$1"
	if systemd_runs; then
		for unit in $unit_files; do
			systemctl disable --quiet --now "$unit" 2>/dev/null || true
		done
	fi
	rm -f "$bin" "$old"
	for unit in $unit_files; do
		rm -f "$units/$unit" "$units/$unit.old"
	done
	! systemd_runs || systemctl daemon-reload
	if [ "$purge" = yes ]; then
		# With DynamicUser= the store is under private, and what is in lib is a link to it.
		rm -rf "$settings" "/var/lib/$store" "/var/lib/private/$store"
		say "the $1, its settings and what it stored are gone"
	else
		say "the $1 is gone; what it stored (/var/lib/$store) and its settings ($settings) stay"
	fi
}

main() {
	action=install from='' begin=yes purge=no chosen=''
	while [ $# -gt 0 ]; do
		case $1 in
		relay | agent) chosen="$chosen $1" ;;
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
			sed -n '2,/^$/{/^#/s/^# \{0,1\}//p;}' "$0"
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
	if [ -z "$chosen" ]; then
		for part in $parts; do
			about "$part"
			[ "$action" != rollback ] || bin=$old
			[ ! -e "$bin" ] || chosen="$chosen $part"
		done
		chosen=${chosen:-relay}
	fi
	if [ "$action" = install ]; then
		install_parts
		return
	fi
	for part in $chosen; do
		case $action in
		rollback) rollback "$part" ;;
		uninstall) uninstall "$part" ;;
		esac
	done
}

main "$@"
exit
}
