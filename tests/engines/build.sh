#!/bin/bash
# build.sh DIR: puts a current Docker Engine (dockerd, docker-proxy) into DIR, built from the Go module that go.mod names.
# Does nothing when DIR or the cache (tests/go.sh) has what go.mod, go.sum and this script say. Else two to four minutes on two cores with a
# cold Go cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
source "$here/../go.sh"
begin "${1-}" "$here"

cd "$here"
module=github.com/moby/moby/v2
version=$(version $module)
for program in dockerd docker-proxy; do
  build $program $module/cmd/$program "-X $module/dockerversion.Version=${version#v}"
done
finish
