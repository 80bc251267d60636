#!/usr/bin/env bash
# Installs the programs that the tests call and this machine lacks. tests/packages lists command and Debian package.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
while read -r command package; do
	[[ -z $command || $command == \#* ]] && continue
	[[ -e $command ]] || command -v "$command" >/dev/null || missing+=("$package")
done <packages
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
	echo "the tests need what these Debian packages have: ${missing[*]}; install them and try again" >&2
	exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
