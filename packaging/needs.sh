#!/bin/bash
# needs.sh [PROGRAM...]: says in one line each what is missing to build the packages, or which of these programs, and how to get it. Changes nothing.
set -u
status=0
while read -r program cure; do
  if [ $# -gt 0 ] && [[ " $* " != *" $program "* ]]; then continue; fi
  # The build takes another protoc where one is named.
  if [ "$program" = protoc ]; then found=${PROTOC:-protoc}; else found=$program; fi
  command -v "$found" >/dev/null || { echo "needs $program: $cure" >&2; status=1; }
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
