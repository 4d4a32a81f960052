#!/bin/bash
# browser.sh FOLDER: what `make test-ui` needs besides the packages of `tests/packages`: a browser, and axe-core, which is put into FOLDER.
# Does nothing when they are there.
set -euo pipefail
folder=$1
axe=4.14.1

if ! command -v chromium-headless-shell >/dev/null; then
  [ "$(id -u)" = 0 ] || { echo "needs root to install the package chromium-headless-shell" >&2; exit 1; }
  DEBIAN_FRONTEND=noninteractive apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium-headless-shell
fi
[ ! -s "$folder/axe-core-$axe.tgz" ] || exit 0
command -v npm >/dev/null || { echo "needs npm, which gets axe-core: install it (on Debian: apt-get install npm)" >&2; exit 1; }
mkdir -p "$folder"
npm pack --silent --pack-destination "$folder" "axe-core@$axe" >/dev/null
tar -xzf "$folder/axe-core-$axe.tgz" -C "$folder" --strip-components=1 package/axe.min.js
