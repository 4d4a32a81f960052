#!/bin/bash
# install.sh: on Debian 12, as root, installs the packages that `make demo` and `make test` use. Rust (and for `make test` Go) are yours.
set -euo pipefail

packages="busybox-static conntrack containernetworking-plugins docker.io etcd-server gcc git iproute2 iptables kmod libc6-dev nftables openssl procps
  protobuf-compiler runc util-linux"
# dpkg-query fails when it has never heard of a package; that is an answer, too.
# shellcheck disable=SC2086
missing=$({ dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' $packages 2>/dev/null || true; } | awk '$2 == "ii" { print $1 }' |
  sort | comm -13 - <(printf '%s\n' $packages | sort))
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "needs root to install: $missing" >&2; exit 1; }

# The tests start Docker daemons of their own; the package's service would only change this machine's firewall.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing
