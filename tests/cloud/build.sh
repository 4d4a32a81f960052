#!/bin/bash
# build.sh DIR: puts the EC2 emulator's Python packages into DIR, as requirements.txt has them: a link into the cache (see tests/go.sh), where
# the next clone finds them. Does nothing when they are there; else half a minute.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${1:?folder for the packages}
cache=${EGRESSD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/egressd}
want=$({ uname -m; python3 -V; cat "$here/requirements.txt" "${BASH_SOURCE[0]}"; } | sha256sum | cut -c 1-16)
kept=$cache/cloud-$want
mkdir -p "$cache" "$(dirname "$dir")"
exec 9>"$cache/cloud.lock"
flock 9 # another clone may be doing the same
if [ ! -d "$kept" ]; then
  rm -rf "$cache"/cloud-*.partial # of a build that was ended: we have the lock
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$kept.partial" \
    --requirement "$here/requirements.txt"
  # Other services' models are most of it.
  find "$kept.partial/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name ec2 ! -name sts -exec rm -rf {} +
  mv "$kept.partial" "$kept"
fi
ln -sfn "$kept" "$dir"
