#!/bin/bash
# build.sh DIR: puts a current Docker Engine (dockerd, docker-proxy) into DIR, built from the Go module that go.mod names.
# Does nothing when DIR holds what go.mod, go.sum and this script say. Two to four minutes on two cores with a cold Go cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "${1:?folder for the programs}" && cd "$1" && pwd)

exec 9>"$out/.lock"
flock 9 # two test programs may ask at the same time
want=$(cd "$here" && sha256sum go.mod go.sum build.sh)
[ "$(cat "$out/.built" 2>/dev/null)" = "$want" ] && exit 0
rm -f "$out/.built"

module=github.com/moby/moby/v2
version=$(awk -v module="$module" '$1 == module { print $2; exit } $2 == module { print $3; exit }' "$here/go.mod")
export CGO_ENABLED=0
cd "$here"
for program in dockerd docker-proxy; do
  nice go build -mod=readonly -trimpath -ldflags "-s -w -X $module/dockerversion.Version=${version#v}" -o "$out/$program" "$module/cmd/$program"
done
printf '%s\n' "$want" >"$out/.built"
