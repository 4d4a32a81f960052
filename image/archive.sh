#!/bin/bash
# archive.sh DIR NAME:TAG OUT.tar: what `docker build --file Dockerfile DIR` and `docker save` make, without Docker: an archive that docker,
# podman and containerd load. It reads of the Dockerfile what that has: labels, files to copy, the program. The same files in, the same
# archive out.
set -euo pipefail
[ $# = 3 ] || { echo "usage: $0 DIR NAME:TAG OUT.tar" >&2; exit 2; }
from=$1 name=$2 out=$3
dockerfile=$(dirname "${BASH_SOURCE[0]}")/../Dockerfile
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Of an instruction, what stands behind it.
of() { sed -n "s/^$1 //p" "$dockerfile"; }
unknown=$(grep -vE '^(#|FROM scratch$|ARG VERSION=|LABEL |COPY |ENTRYPOINT |$)' "$dockerfile" || true)
[ -z "$unknown" ] || { echo "$dockerfile: this script knows nothing of: $unknown" >&2; exit 1; }

tar=(tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=ustar)
mkdir -p "$work/image"
while read -r source target; do
  install -D -m 755 "$from/$source" "$work/root$target"
done < <(of COPY)
"${tar[@]}" -C "$work/root" -cf "$work/image/layer.tar" .
layer=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac
labels=$(of LABEL | sed "s/\$VERSION/${name##*:}/; s/^\([^=]*\)=/\"\1\": /" | paste -sd,)
cat >"$work/image/config.json" <<JSON
{"architecture": "$architecture", "os": "linux", "config": {"Entrypoint": $(of ENTRYPOINT), "Labels": {$labels}},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
JSON
echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$name\"], \"Layers\": [\"layer.tar\"]}]" >"$work/image/manifest.json"
"${tar[@]}" -C "$work/image" -cf "$out" config.json layer.tar manifest.json
