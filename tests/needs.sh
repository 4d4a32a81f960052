#!/bin/bash
# needs.sh [PROGRAM...]: says in one line each what is missing for the tests, and how to get it. Changes nothing.
set -u
status=0

[ "$(id -u)" = 0 ] || { echo "needs root: the tests make network namespaces and start Docker daemons and Kubernetes nodes in them"; status=1; }
for need in busybox:busybox-static cc:gcc dockerd:docker.io etcd:etcd-server git:git ip:iproute2 iptables:iptables modprobe:kmod nft:nftables openssl:openssl \
  protoc:protobuf-compiler ps:procps runc:runc setpriv:util-linux sysctl:procps tar:tar unshare:util-linux; do
  command -v "${need%%:*}" >/dev/null || { echo "needs ${need%%:*}: install the package ${need#*:} (make install)"; status=1; }
done
[ -x /usr/lib/cni/bridge ] || { echo "needs /usr/lib/cni/bridge: install the package containernetworking-plugins (make install)"; status=1; }
command -v cargo >/dev/null || { echo "needs cargo: install Rust (https://rustup.rs)"; status=1; }
for program in "$@"; do
  command -v "$program" >/dev/null || { echo "needs $program"; status=1; }
done
exit $status
