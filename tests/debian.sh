#!/bin/bash
# debian.sh FILE.tar: puts the files of a clean Debian 12, its essential packages alone, into an archive: what tests/newcomer installs the
# package in. Kept in the cache (tests/go.sh says where) for other clones; half a minute once.
set -euo pipefail
file=$(realpath -m "${1:?file for the archive}")
[ ! -e "$file" ] || exit 0
cache=${EGRESSD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egressd}
kept=$cache/debian-bookworm.tar
mkdir -p "$cache" "$(dirname "$file")"
exec 9>"$cache/debian.lock"
flock 9
if [ ! -e "$kept" ]; then
  echo "a clean Debian 12: half a minute, once for all clones"
  rm -f "$cache"/debian-*.partial.tar # of a run that was ended: we have the lock
  mmdebstrap --quiet --variant=essential bookworm "$cache/debian-bookworm.partial.tar"
  mv "$cache/debian-bookworm.partial.tar" "$kept"
fi
ln --force "$kept" "$file" 2>/dev/null || cp "$kept" "$file"
