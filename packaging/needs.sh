#!/bin/bash
# needs.sh: says in one line each what is missing to build the packages, and how to get it. Changes nothing.
set -u
status=0
while read -r program cure; do
  command -v "$program" >/dev/null || { echo "needs $program: $cure" >&2; status=1; }
done <<'EOF'
cargo install Rust 1.95 (https://rustup.rs)
cc apt install gcc libc6-dev
protoc apt install protobuf-compiler
objdump apt install binutils
jq apt install jq
git apt install git
dpkg-deb build on Debian or Ubuntu; elsewhere use `make release`
EOF
exit $status
