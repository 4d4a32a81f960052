#!/bin/bash
# build.sh DIR: puts the programs of a Kubernetes cluster into DIR: etcd, Kubernetes, containerd with nerdctl, and helm, built from the Go
# modules in programs/. Each has a module of its own: Kubernetes pins the container runtime interface to a version older than containerd's.
# Does nothing when DIR or the cache (tests/go.sh) has what the modules and this script say. Else ten minutes and 2 GB of memory on two cores
# with a cold Go cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/go.sh
source "$here/../go.sh"
begin "${1-}" "$here"

cd "$here/programs/etcd"
build etcd go.etcd.io/etcd/server/v3

cd "$here/programs/kubernetes"
version=$(version k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
# Without them the API server says that it is v0.0.0, and clients believe it.
is=k8s.io/component-base/version
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  build $program k8s.io/kubernetes/cmd/$program "-X $is.gitVersion=$version -X $is.gitMajor=$major -X $is.gitMinor=$minor"
done

cd "$here/programs/containerd"
for program in containerd containerd-shim-runc-v2 ctr; do
  build $program github.com/containerd/containerd/v2/cmd/$program
done

# It does not build as somebody's dependency: a file of its program that only its own tests use imports a module that is nowhere published.
# nerdctl's go.mod looks for that one in a folder, which the published archive leaves out. So a copy is built, without that file.
cd "$here/programs/nerdctl"
module=github.com/containerd/nerdctl/v2
version=$(version $module)
go mod download $module # holds it to go.sum
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r --no-preserve=mode "$(go list -m -f '{{.Dir}}' $module)/." "$copy"
cd "$copy"
rm cmd/nerdctl/helpers/testing_linux.go
mkdir -p mod/tigron
echo 'module github.com/containerd/nerdctl/mod/tigron' >mod/tigron/go.mod
build nerdctl ./cmd/nerdctl "-X $module/pkg/version.Version=$version"

cd "$here/programs/helm"
build helm helm.sh/helm/v3/cmd/helm
finish
