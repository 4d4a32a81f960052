#!/bin/bash
# release.sh VERSION: makes the tree one of a new version, 0.2.0 say: what is Unreleased in CHANGELOG.md is from now on that version's, of today.
# Prints the notes of the release, which are that part of the changelog. Commits nothing: look at `git diff` first.
set -euo pipefail
version=${1:?the new version, 0.2.0 say}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() {
  echo "$*" >&2
  exit 1
}
now=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[[ $version =~ ^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z.-]+)?$ ]] || fail "$version is no version as https://semver.org has them: write 0.2.0, say"
[ "$version" != "$now" ] && [ "$(printf '%s\n' "$now" "$version" | sort -V | tail -1)" = "$version" ] || fail "$version is not later than $now, which is the version of this tree"
[ -z "$(git status --porcelain --untracked-files=no)" ] || fail "there are changes that are not committed: commit them, or \`git stash\` them"
notes() { awk -v from="## $1" 'index($0, from) == 1 { on = 1; next } /^## / { on = 0 } on' CHANGELOG.md; }
[ -n "$(notes Unreleased | tr -d '[:space:]')" ] || fail "CHANGELOG.md has nothing below Unreleased: write there what has changed"

sed -i "0,/^## Unreleased\$/s//## Unreleased\n\n## $version - $(date --utc +%F)/" CHANGELOG.md
old=${now//./\\.}
sed -i "s/^version = \"$old\"\$/version = \"$version\"/" Cargo.toml src/cloud/Cargo.toml
sed -i "/^name = \"egressd\(-cloud\)\?\"\$/{n; s/\"$old\"/\"$version\"/}" Cargo.lock
sed -i "s/^\(version\|appVersion\): $old\$/\1: $version/" charts/egressd/Chart.yaml
sed -i "s/^    \"version\": \"$old\"\$/    \"version\": \"$version\"/" docs/api.json
# The image's name, wherever somebody types it.
git grep -lE "egressd:$old|VERSION=$old" -- Dockerfile docs tests | xargs sed -i "s/egressd:$old/egressd:$version/g; s/VERSION=$old/VERSION=$version/g"
notes "$version - "
