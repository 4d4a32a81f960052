#!/bin/bash
# run.sh [PROGRAM...]: all tests, or those of these test programs (`unit` stands for those inside the crates). Two programs at a
# time (AT_ONCE=1: one), because most of their scenarios wait; the output of each is in target/tmp/logs, and is printed whole when it ends.
# Each minute a line says what runs, how far it is, and how long the rest takes by what each program took when it last ran here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
logs=$(realpath -m "${CARGO_TARGET_DIR:-target}/tmp/logs")
# Seconds of each program in earlier runs.
took=$(dirname "$logs")/took
export logs took

echo "builds the test programs: some minutes the first time"
cargo test --workspace --no-run

# Those that take longest begin. Of clusters there are two at a time, both in use by `kubernetes`: who has some, too, comes when it is done. Its
# first scenario is alone, and waits for what began before it: beside it begin short ones, and programs that have no scenarios.
# (`make vm` runs what wants a virtual machine.)
programs() {
  { printf '%s\n' kubernetes docker unit readers api_server leader containerd cluster chart_cluster demo_kubernetes docker_engine; ls -d tests/*.rs tests/*/main.rs | grep -v tests/vm/; echo unit; } |
    sed 's|^tests/||; s|/main.rs$||; s|\.rs$||' | awk '!seen[$0]++'
}

# The same packages in each call, so that each finds what was built.
one() {
  local log=$logs/$1.log which=(--test "$1") status=0 began=$SECONDS
  if [ "$1" = unit ]; then which=(--lib --bins); fi
  trap 'cat "$log"; exit 1' TERM
  cargo test --workspace --no-fail-fast "${which[@]}" >"$log" 2>&1 || status=$?
  if [ $status = 0 ]; then echo $((SECONDS - began)) >"$took/$1"; fi
  {
    flock 8
    touch "$logs/$1.ended"
    printf '\n== %s: %s after %d s\n' "$1" "$([ $status = 0 ] && echo passed || echo FAILED)" $((SECONDS - began))
    cat "$log"
  } 8>"$logs/.lock"
  return $status
}
export -f one

# One line: programs that have ended, the scenarios of those that run, and the time left, once each program has run here before.
progress() {
  local name running=() left=0 ended=0 count
  for name in "${all[@]}"; do
    if [ -e "$logs/$name.ended" ]; then
      ended=$((ended + 1))
      continue
    fi
    if [ -e "$logs/$name.log" ]; then
      count=$(awk '/^running [0-9]+ test/ { of += $2 } /^test .* (ok|FAILED)$/ { done++ } END { printf "%d of %d", done, of }' "$logs/$name.log")
      running+=("$name ($count)")
    fi
    if [ -e "$took/$name" ] && [ -n "$left" ]; then left=$((left + $(<"$took/$name"))); else left=; fi
  done
  printf '\n-- %d of %d programs after %d s; running: %s%s\n' $ended ${#all[@]} $SECONDS "$(IFS=,; echo "${running[*]}" | sed 's/,/, /g')" \
    "${left:+; about $((left / ${AT_ONCE:-2} / 60 + 1)) minutes left}"
}

rm -rf "$logs"
mkdir -p "$logs" "$took"
mapfile -t all < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else programs; fi)
# A pipe that nobody writes to is a clock that leaves no process behind.
exec 7<> <(:)
while ! read -r -t 60 -u 7; do progress; done &
ticks=$!
trap 'kill $ticks 2>/dev/null || true' EXIT
failed=0
printf '%s\n' "${all[@]}" |
  xargs --max-procs="${AT_ONCE:-2}" --max-args=1 bash -c 'one "$1"' one || failed=1
if [ $# = 0 ]; then cargo test --workspace --doc --quiet || failed=1; fi
exit $failed
