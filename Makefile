# make demo: shows it, on Debian 12 as root with Rust; make demo-kubernetes: in a cluster; make test: proves it. CONTRIBUTING.md has the rest.
SHELL := /bin/bash
target := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Outside of the clone: what is built once for all clones. tests/go.sh uses it, too.
cache := $(or $(EGRESSD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/egressd)

.PHONY: demo demo-kubernetes test soak bench install needs needs-go release image engines cluster cloud lint generated licences
# What is installed comes before what is built with it.
.NOTPARALLEL:

demo: install needs release
	cargo test --quiet --test demo

# Wants Go as well: it builds the programs of a Kubernetes cluster, ten minutes once.
demo-kubernetes: install needs-go image cluster
	cargo test --quiet --test demo_kubernetes

test: install needs-go image engines cluster cloud
	tests/run.sh

# The scenarios that count first packets, with four times as many as in test: half an hour. Notes what they print in docs/soak.md.
soak: install needs-go image engines cluster cloud
	tests/soak.sh docs/soak.md

# Measures, for some minutes, and writes docs/benchmarks.md: ROUNDS=60 make bench for more rounds. Wants a machine with nothing else to do.
bench: install needs release
	cargo build --release --package bench
	$(target)/release/packets

# The packages that demo and test use, on Debian 12.
install:
	tests/install.sh

# Says what is missing, and installs nothing.
needs:
	@tests/needs.sh
needs-go:
	@tests/needs.sh go

# The tests run this binary: what a user gets, not what they were built with.
release:
	cargo build --release

# What the chart installs: a static binary and an archive to load, in target/image. The flag for the last crate alone spares a second build
# of the others; what was linked before is put back, for whoever runs it.
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image:
	cargo rustc --release --bin egressd -- -C target-feature=+crt-static
	install -D --mode 755 $(target)/release/egressd $(target)/image/egressd
	image/archive.sh $(target)/image egressd:$(version) $(target)/image/egressd.tar
	cargo build --release

# A current Docker Engine beside Debian's, from the Go module that tests/engines/go.mod names. Minutes once for all clones of it, then nothing.
engines:
	tests/engines/build.sh $(target)/tmp/engine

# The programs of a Kubernetes cluster, and nerdctl, from the Go modules below tests/cluster/programs. Ten minutes once
# for all clones, then nothing.
cluster:
	tests/cluster/build.sh $(target)/tmp/cluster

# The program for the cloud's side, and the EC2 emulator that its tests use, from Python's registry: half a minute once for all clones.
cloud:
	cargo build --release --package egressd-cloud
	tests/cloud/build.sh $(target)/tmp/cloud

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# What is generated from the types is what is committed.
generated: release
	$(target)/release/egressd crd | diff <(awk 'FNR == 1 && NR > 1 { print "---" } { print }' crds/*.yaml) -
	diff -r crds charts/egressd/files/crds
	$(target)/release/egressd reference | diff docs/reference.md -

# Licences, banned crates and where crates come from. Builds cargo-deny once, into the cache.
deny := 0.20.2
tools := $(cache)/cargo-deny-$(deny)
licences:
	@[ -x $(tools)/bin/cargo-deny ] || cargo install --quiet --locked --root $(tools) --target-dir $(target)/tools --version $(deny) cargo-deny
	$(tools)/bin/cargo-deny --locked check licenses bans sources
