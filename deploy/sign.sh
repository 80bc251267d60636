#!/usr/bin/env bash
# Finishes a release: writes the public keys into its install.sh, SHA256SUMS over its files, and the signatures of
# SHA256SUMS. build-all.sh and release.sh call it.
#
#   deploy/sign.sh [FOLDER]      default: dist
#
# CORALMUX_SIGNING_KEY   the private key for openssl, ECDSA on P-256, as PEM text
# CORALMUX_MINISIGN_KEY  the secret key for minisign, without a password: the text of its file
# CORALMUX_RELEASE_URL   where install.sh finds the newest release, if not at the project's own place
#
# Both keys or none: what is not signed can be installed from its folder, and not over the network. RELEASING.md says how
# keys are made.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-dist}
umask 022

die() {
	echo "sign: $*" >&2
	exit 1
}

keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT

fill() {
	grep -q "^$1=" "$folder/install.sh" || die "$folder/install.sh has no line $1="
	sed -i "s|^$1=.*|$1=$2|" "$folder/install.sh"
}

openssl_key='' minisign_key=''
if [[ -n ${CORALMUX_SIGNING_KEY:-} || -n ${CORALMUX_MINISIGN_KEY:-} ]]; then
	[[ -n ${CORALMUX_SIGNING_KEY:-} && -n ${CORALMUX_MINISIGN_KEY:-} ]] ||
		die "CORALMUX_SIGNING_KEY and CORALMUX_MINISIGN_KEY belong together: a machine has either openssl or minisign"
	(umask 077 && printf '%s\n' "$CORALMUX_SIGNING_KEY" >"$keys/openssl" && printf '%s\n' "$CORALMUX_MINISIGN_KEY" >"$keys/minisign")
	openssl_key=$(openssl pkey -in "$keys/openssl" -pubout | grep -v -- ----- | tr -d '\n') ||
		die "CORALMUX_SIGNING_KEY is not a private key as PEM"
	minisign -R -s "$keys/minisign" -p "$keys/minisign.pub" >/dev/null </dev/null ||
		die "CORALMUX_MINISIGN_KEY is not a secret key of minisign without a password"
	minisign_key=$(tail -1 "$keys/minisign.pub")
fi

install -m 755 deploy/install.sh "$folder/install.sh"
fill openssl_key "$openssl_key"
fill minisign_key "$minisign_key"
[[ -z ${CORALMUX_RELEASE_URL:-} ]] || fill release_url "$CORALMUX_RELEASE_URL"

cd "$folder"
rm -f SHA256SUMS SHA256SUMS.sig SHA256SUMS.minisig
sha256sum coralmux-* install.sh setup.sh >"$keys/sums"
mv "$keys/sums" SHA256SUMS
if [[ -n $openssl_key ]]; then
	openssl dgst -sha256 -sign "$keys/openssl" -out SHA256SUMS.sig SHA256SUMS
	minisign -S -s "$keys/minisign" -m SHA256SUMS >/dev/null </dev/null
else
	echo "sign: no keys in the environment, so $folder is not signed: it can be installed from its folder only" >&2
fi
