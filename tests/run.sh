#!/bin/bash
# run.sh [PROGRAM...]: all tests, or those of these test programs (`unit` stands for those inside the crates). Two programs at a time
# (AT_ONCE=1: one), because most of their scenarios wait; the output of each is in target/tmp/logs, and is printed whole when it ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
logs=$(realpath -m "${CARGO_TARGET_DIR:-target}/tmp/logs")
export logs

cargo test --workspace --no-run

# Those that take longest begin. (`make vm` runs what wants a virtual machine.)
programs() {
  { printf '%s\n' kubernetes docker containerd; ls -d tests/*.rs tests/*/main.rs | grep -v tests/vm/; echo unit; } |
    sed 's|^tests/||; s|/main.rs$||; s|\.rs$||' | awk '!seen[$0]++'
}

# The same packages in each call, so that each finds what was built.
one() {
  local log=$logs/$1.log which=(--test "$1") status=0 began=$SECONDS
  if [ "$1" = unit ]; then which=(--lib --bins); fi
  trap 'cat "$log"; exit 1' TERM
  cargo test --workspace --no-fail-fast "${which[@]}" >"$log" 2>&1 || status=$?
  {
    flock 8
    printf '\n== %s: %s after %d s\n' "$1" "$([ $status = 0 ] && echo passed || echo FAILED)" $((SECONDS - began))
    cat "$log"
  } 8>"$logs/.lock"
  return $status
}
export -f one

rm -rf "$logs"
mkdir -p "$logs"
failed=0
{ if [ $# -gt 0 ]; then printf '%s\n' "$@"; else programs; fi; } |
  xargs --max-procs="${AT_ONCE:-2}" --max-args=1 bash -c 'one "$1"' one || failed=1
if [ $# = 0 ]; then cargo test --workspace --doc --quiet || failed=1; fi
exit $failed
