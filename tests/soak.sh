#!/bin/bash
# soak.sh FILE: runs the scenarios that count first packets with many more of them (EGRESSD_SOAK, read in tests/world), and notes in FILE what
# they print, the newest run first.
set -euo pipefail
file=$(realpath -m "${1:?file for the results}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo test --workspace --no-run
status=0
for test in "docker:no first packet of" "kubernetes:send in their first instruction" "programs:first packets of programs" "cloud:killed at any call" "upgrade:0.1.0" \
  "proxy:all served, by a few" "proxy:idle connections" "proxy:come and go" \
  "kubernetes:goes from pod to pod" "readers:no input harms its reader"; do
  EGRESSD_SOAK=1 cargo test --workspace --test "${test%%:*}" -- "${test#*:}" 2>&1 | tee -a "$work/output" || status=1
done

{
  echo "# Soak runs"
  echo
  echo "What \`make soak\` printed, the newest run first."
  echo
  echo "## $(date -u +%F), egressd $(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1) ($(git rev-parse --short HEAD)), kernel $(uname -r), $(nproc) cores"
  echo
  echo '```text'
  grep -E '^(test .* (ok|FAILED)|[A-Za-z]+, .*:.* [0-9]|[0-9]+ pods|.* variations$|  n[0-9]+:|--- failed)' "$work/output" || echo "nothing: it failed before the first scenario"
  echo '```'
  if [ -e "$file" ]; then sed -n '4,$p' "$file"; fi
} >"$work/file"
mv "$work/file" "$file"
exit $status
