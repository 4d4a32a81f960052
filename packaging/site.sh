#!/bin/bash
# site.sh DIR REPOSITORY: builds the site of the pages in docs into DIR with mdBook. Links to what is not in docs lead to REPOSITORY, the address
# under which the tree can be browsed.
set -euo pipefail
out=$(realpath -m "${1:?folder for the site}") repository=${2:-}
[ -n "$repository" ] || { echo "say where the tree can be browsed: REPOSITORY=https://HOST/OWNER/egressd/blob/main make site" >&2; exit 1; }
command -v mdbook >/dev/null || { echo "needs mdbook: cargo install mdbook" >&2; exit 1; }
cd "$(dirname "${BASH_SOURCE[0]}")/../docs"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp book.toml ./*.md "$work"
sed -i "s|](\.\./|]($repository/|g" "$work"/*.md
mdbook build --dest-dir "$out" "$work"
