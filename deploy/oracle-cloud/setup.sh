#!/usr/bin/env bash
# Turns a machine of Oracle's cloud, such as a free A1 (ARM), into a relay: opens the machine's own firewall for clients,
# raises kernel limits for connections, installs the relay and starts it. It can be run again at any time.
#
#   setup.sh [--domain NAME] [--port PORT]... [--from SOURCE]
#
#   --domain NAME   obtain a certificate for this name and speak TLS on 443; the name must point to this machine
#   --port PORT     open this port for clients [default: 80 and 443 with --domain, else 8080]; repeatable
#   --from SOURCE   where install.sh gets the release from
#
# For Ubuntu 24.04, Debian 12 and Oracle Linux with UEK 8. At its end it prints what is left to do by hand: the cloud has
# a firewall of its own in front of the machine.
set -euo pipefail

domain='' ports=() source=() settings=/etc/coralmux/environment

say() {
	echo "setup: $*"
}

die() {
	echo "setup: $*" >&2
	exit 1
}

read_arguments() {
	while [[ $# -gt 0 ]]; do
		case $1 in
		-h | --help)
			sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
			exit 0
			;;
		--domain | --port | --from) [[ $# -ge 2 && -n $2 ]] || die "$1 needs a value" ;;&
		--domain) domain=$2 ;;
		--port) ports+=("$2") ;;
		--from) source=(--from "$2") ;;
		*) die "unknown: $1 (--help tells what there is)" ;;
		esac
		shift 2
	done
	if [[ ${#ports[@]} -eq 0 ]]; then
		if [[ -n $domain ]]; then ports=(80 443); else ports=(8080); fi
	fi
	local port
	for port in "${ports[@]}"; do
		[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || die "--port $port: not a port"
	done
	[[ -z $domain || $domain =~ ^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]] || die "--domain $domain: not a name"
}

# The number of the rule before which ours belongs: the first that rejects everything else.
refusing_rule() {
	"$1" -S INPUT | grep '^-A' | grep -nE -m1 '^-A INPUT -j (REJECT|DROP)' | cut -d: -f1
}

# Oracle's images for Ubuntu and Debian reject everything but ssh with plain iptables rules, restored from a file at each
# boot. Our rule goes before the rejection, both in the kernel and in that file, and nothing else changes: rules that
# others, such as Docker, have added to the kernel since do not get into the file.
open_in_iptables() {
	local tool=$1 file=$2 port=$3 rule at
	rule=(-p tcp -m state --state NEW -m tcp --dport "$port" -j ACCEPT)
	if at=$(refusing_rule "$tool") && [[ -n $at ]] && ! "$tool" -C INPUT "${rule[@]}" 2>/dev/null; then
		"$tool" -I INPUT "$at" "${rule[@]}"
		say "$tool lets clients through to port $port"
	fi
	local line="-A INPUT ${rule[*]}"
	if [[ -e $file ]] && ! grep -qxF -- "$line" "$file" && grep -qE '^-A INPUT -j (REJECT|DROP)' "$file"; then
		awk -v line="$line" '/^-A INPUT -j (REJECT|DROP)/ && !done { print line; done = 1 } { print }' "$file" >"$file.new"
		chmod --reference="$file" "$file.new"
		mv "$file.new" "$file"
		say "$file has it for the next boot"
	fi
}

# iptables and ip6tables, and where their rules are stored. On a machine without rules there is nothing to open.
open_port() {
	local port=$1
	if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then
		firewall-cmd --quiet --add-port="$port/tcp"
		firewall-cmd --quiet --permanent --add-port="$port/tcp"
		say "firewalld lets clients through to port $port"
	elif command -v ufw >/dev/null && ufw status | grep -q '^Status: active'; then
		ufw allow "$port/tcp" >/dev/null
		say "ufw lets clients through to port $port"
	elif command -v iptables >/dev/null; then
		open_in_iptables iptables /etc/iptables/rules.v4 "$port"
		! command -v ip6tables >/dev/null || open_in_iptables ip6tables /etc/iptables/rules.v6 "$port"
	fi
}

# Kernel limits for connections. The firewall's rules are stateful, so each connection has an entry there too. A name
# with a leading dash may be missing: a kernel without it does not need it.
raise_limits() {
	modprobe nf_conntrack 2>/dev/null || true
	mkdir -p /etc/sysctl.d /etc/modules-load.d
	echo nf_conntrack >/etc/modules-load.d/coralmux.conf
	cat >/etc/sysctl.d/60-coralmux.conf <<-'END'
		# For CoralMux Relay: see docs/operations/install.md, Oracle Cloud.
		# Connections that have come and are not accepted yet.
		net.core.somaxconn = 8192
		net.ipv4.tcp_max_syn_backlog = 8192
		# Connections that the firewall knows: phones and agents, and those that have just gone.
		-net.netfilter.nf_conntrack_max = 524288
		# The relay is built on io_uring.
		-kernel.io_uring_disabled = 0
	END
	sysctl --quiet --load /etc/sysctl.d/60-coralmux.conf || say "some of /etc/sysctl.d/60-coralmux.conf is not in force"
	local files
	files=$(</proc/sys/fs/nr_open)
	[[ $files -ge 1048576 ]] || say "fs.nr_open is $files: the relay can have no more connections than that"
}

# A setting in the relay's environment file. If the operator has given it another value, that is kept. A relay running
# without it is stopped, and install.sh starts it again.
set_domain() {
	local line="CORALMUX_DOMAIN=$domain"
	if grep -qE '^CORALMUX_DOMAIN=' "$settings" 2>/dev/null; then
		grep -qxF "$line" "$settings" ||
			die "$settings names another domain: change it there, then systemctl restart coralmux-relay"
		return
	fi
	mkdir -p "${settings%/*}"
	(
		umask 077
		echo "$line" >>"$settings"
	)
	! systemctl is-active --quiet coralmux-relay || systemctl stop coralmux-relay
}

read_arguments "$@"
[[ $(id -u) -eq 0 ]] || die "this needs root: sudo $0"
# In a pipe there is no such file, and the current folder is not trusted.
[[ -f ${BASH_SOURCE[0]-} ]] || die "save this script among the files of a release, and start it there"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
installer=$here/install.sh
[[ -e $installer ]] || installer=$here/../install.sh
[[ -e $installer ]] || die "install.sh is neither beside this script nor in the folder above"

for port in "${ports[@]}"; do
	open_port "$port"
done
raise_limits
[[ -z $domain ]] || set_domain
"$installer" "${source[@]}"

cat <<END
setup: done on this machine. The cloud's own firewall is not its business: in the console, add an ingress rule for TCP
setup: ${ports[*]} (source 0.0.0.0/0, and ::/0) to the subnet's security list or to a network security group.
END
