#!/bin/bash
# install.sh [FILE]: installs the packages of the file `packages`, or of another one, on Debian 12 as root. Does nothing when they are there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# On another distribution they have other names: there, it says which programs are missing.
command -v dpkg-query apt-get >/dev/null || exec "$here/needs.sh"

packages=$(sed '/^#/d; s/ .*//' "${1:-$here/packages}" | sort)
# dpkg-query fails when it has never heard of a package; that is an answer, too.
# shellcheck disable=SC2086
missing=$({ dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' $packages 2>/dev/null || true; } | awk '$2 == "ii" { print $1 }' |
  sort | comm -13 - <(printf '%s\n' "$packages"))
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "needs root to install: ${missing//$'\n'/ }" >&2; exit 1; }

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
