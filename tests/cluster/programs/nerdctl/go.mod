module egressd.dev/tests/nerdctl

go 1.26

require github.com/containerd/nerdctl/v2 v2.2.0
