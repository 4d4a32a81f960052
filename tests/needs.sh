#!/bin/bash
# needs.sh [PROGRAM...]: says in one line each what is missing for the tests, and how to get it. Changes nothing.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
status=0
missing() {
  echo "needs $1" >&2
  status=1
}

[ "$(id -u)" = 0 ] || missing "root: the tests make network namespaces and start Docker daemons and Kubernetes nodes in them"
while read -r package files; do
  for file in $files; do
    command -v "$file" >/dev/null || [ -e "$file" ] || missing "$file: install the package $package (on Debian: make install)"
  done
done < <(sed '/^#/d' "$here/packages")
command -v cargo >/dev/null || missing "cargo: install Rust (https://rustup.rs)"
for program in "$@"; do
  command -v "$program" >/dev/null || missing "$program"
done
exit $status
