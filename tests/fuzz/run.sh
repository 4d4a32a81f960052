#!/bin/bash
# run.sh SECONDS [READER...]: searches with libFuzzer for input that a reader cannot bear, so many seconds for each, and keeps in
# tests/fuzz/corpus what reaches code that nothing before it did. Ends with 1 if it found something: the input is then in target/tmp/fuzz.
# Wants cargo-fuzz (`cargo install cargo-fuzz`), xxd and a compiler of C++ (g++). No sanitizer: there is no unsafe code, and Rust's stable release has none.
set -euo pipefail
seconds=${1:?seconds for each reader}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
shift
readers=("$@")
if [ $# = 0 ]; then mapfile -t readers < <(sed -n 's/^    ("\([a-z]*\)", .*),$/\1/p' src/fuzzing.rs); fi
work=$PWD/target/tmp/fuzz
fuzz() { # COMMAND ARGUMENT...
  cargo fuzz "$1" --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none "${@:2}"
}

fuzz build readers
status=0
for reader in "${readers[@]}"; do
  export READER=$reader
  corpus=$work/$reader kept=tests/fuzz/corpus/$reader
  rm -rf "$corpus" "$corpus.small"
  mkdir -p "$corpus" "$corpus.small" "$work/found"
  # One input a line, in hexadecimal digits.
  number=0
  while read -r line; do
    xxd -r -p <<<"$line" >"$corpus/$((number++))"
  done < <(cat "$kept" 2>/dev/null)
  echo "== $reader: $number inputs"
  fuzz run readers "$corpus" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$work/found/$reader-" || status=1
  fuzz run readers -- -merge=1 -verbosity=0 -max_len=4096 "$corpus.small" "$corpus"
  for input in "$corpus.small"/*; do xxd -p "$input" | tr -d '\n'; echo; done | sort >"$kept"
done
exit $status
