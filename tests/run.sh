#!/bin/bash
# run.sh [PROGRAM...]: all tests, or those of these test programs (`unit` stands for those inside the crates). Two programs at a
# time (AT_ONCE=1: one), because most of their scenarios wait; the output of each is in target/tmp/logs, and is printed whole when it ends.
# A few that fail beside others are tried once more, alone, when all have ended: what fails then, too, is a failure; what passes is told last, as flaky.
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
tested() {
  local which=(--test "$1")
  if [ "$1" = unit ]; then which=(--lib --bins); fi
  cargo test --workspace --no-fail-fast "${which[@]}" "${@:2}"
}
one() {
  local log=$logs/$1.log status=0 began=$SECONDS
  trap 'cat "$log"; exit 1' TERM
  tested "$1" >"$log" 2>&1 || status=$?
  if [ $status = 0 ]; then echo $((SECONDS - began)) >"$took/$1"; fi
  {
    flock 8
    echo $status >"$logs/$1.ended"
    printf '\n== %s: %s after %d s\n' "$1" "$([ $status = 0 ] && echo passed || echo FAILED)" $((SECONDS - began))
    cat "$log"
  } 8>"$logs/.lock"
  return $status
}
export -f tested one

# Tries again what failed, alone. More than a few have a cause in common, and a program that ended otherwise has none to try.
again() {
  local name log failed scenario flaky=()
  for name in "${all[@]}"; do
    log=$logs/$name.log
    if [ "$(<"$logs/$name.ended")" = 0 ]; then continue; fi
    failed=$(grep -c '^test result: FAILED' "$log")
    if [ "$failed" = 0 ] || [ "$failed" != "$(grep -c '^    `-p .*`$' "$log")" ]; then return 1; fi
    while read -r -u 6 scenario; do
      flaky+=("$name: $scenario")
      if [ ${#flaky[@]} -gt 3 ]; then return 1; fi
      printf '\n== again, alone: %s: %s\n' "$name" "$scenario"
      tested "$name" -- --exact "$scenario" || return 1
    done 6< <(sed -nE 's/^test (.*[^ ]) *\.\.\. FAILED$/\1/p' "$log")
  done
  if [ ${#flaky[@]} = 0 ]; then return 1; fi
  printf '\nflaky (failed beside others, passed alone):\n'
  printf '  %s\n' "${flaky[@]}"
}

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
  xargs --max-procs="${AT_ONCE:-2}" --max-args=1 bash -c 'one "$1"' one || again || failed=1
if [ $# = 0 ]; then cargo test --workspace --doc --quiet || failed=1; fi
exit $failed
