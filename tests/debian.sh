#!/bin/bash
# debian.sh FILE.tar: puts the files of a clean Debian, its essential packages alone, into an archive: what tests/newcomer installs the package
# in. It is of this machine's release, whose C library the programs are linked to. Kept in the cache (tests/go.sh says where) for other
# clones; half a minute once.
set -euo pipefail
file=$(realpath -m "${1:?file for the archive}")
[ ! -e "$file" ] || exit 0
cache=${EGRESSD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egressd}
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
kept=$cache/debian-$release.tar
mkdir -p "$cache" "$(dirname "$file")"
exec 9>"$cache/debian.lock"
flock 9
if [ ! -e "$kept" ]; then
  echo "builds a clean Debian ($release): half a minute the first time"
  rm -f "$cache"/debian-*.partial.tar # of a run that was ended: we have the lock
  mmdebstrap --quiet --variant=essential "$release" "${kept%.tar}.partial.tar"
  mv "${kept%.tar}.partial.tar" "$kept"
fi
ln --force "$kept" "$file" 2>/dev/null || cp "$kept" "$file"
