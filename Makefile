# make demo: shows it, on Debian 12 as root with Rust; make test: proves it; make help: lists all. CONTRIBUTING.md has the rest.
SHELL := /bin/bash
target := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Outside of the clone: what is built once for all clones. tests/go.sh uses it, too.
cache := $(or $(EGRESSD_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/egressd)

.PHONY: help demo demo-forwarder demo-inbound demo-programs demo-kubernetes test test-ui vm fuzz soak bench bench-inbound count install needs needs-go needs-build release image packages needs-packages next-version engines cluster cloud debian lint generated licences site
# What is installed comes before what is built with it.
.NOTPARALLEL:

help: ## Lists these commands
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { split($$1, name, ":"); printf "  make %-16s %s\n", name[1], $$2 }' $(firstword $(MAKEFILE_LIST))

demo: install needs release ## Shows two containers that leave by two NICs, before and after (needs Rust; 5 minutes the first time)
	cargo test --quiet --test demo

demo-forwarder: install needs release ## Shows a forwarder with one NIC and six addresses, each connection by the next
	cargo test --quiet --test demo_forwarder

demo-inbound: install needs release ## Shows a port of the host that three servers behind it share
	cargo test --quiet --test demo_inbound

demo-programs: install needs release ## Shows a program of the host that is started twice, by two exits
	cargo test --quiet --test demo_programs

# Wants Go as well: it builds the programs of a Kubernetes cluster, ten minutes once.
demo-kubernetes: install needs-go image cluster ## The same with pods in a real cluster (needs Rust and Go; 20 minutes the first time)
	cargo test --quiet --test demo_kubernetes

test: install needs-go image engines cluster cloud debian ## Runs all tests (needs Rust and Go; 15 minutes more the first time)
	tests/run.sh

# egressd on Debian's kernel, in a virtual machine that emulates its processor: NICs of kinds that this kernel may lack, SCTP, tables without an
# owner. A quarter of an hour, on a machine with nothing else to do.
vm: install needs release ## Runs the tests that want another kernel, in a virtual machine (a quarter of an hour)
	tests/install.sh tests/vm/packages
	cargo test --test vm

# The page in a real browser, which is too large for every run: installs Debian's chromium-headless-shell (300 MB), and gets axe-core by npm.
# UPDATE_GENERATED=1 make test-ui writes the pictures of docs/page.md.
test-ui: install needs release ## Tests the page in a real browser (installs Chromium, 300 MB)
	tests/page/browser.sh $(cache)/page
	EGRESSD_BROWSER=chromium-headless-shell EGRESSD_AXE=$(cache)/page/axe.min.js cargo test --test page

# With coverage, by libFuzzer; `make test` varies what this found for four seconds each. SECONDS_EACH=60 make fuzz for less.
fuzz: install ## Searches for input that a reader cannot bear, an hour for each
	@[ -x "$$(command -v cargo-fuzz)" ] || cargo install --quiet --locked cargo-fuzz
	tests/fuzz/run.sh $(or $(SECONDS_EACH),3600)

# The scenarios that count first packets, with four times as many as in test: half an hour. Notes what they print in docs/soak.md.
soak: install needs-go image engines cluster cloud ## Runs the scenarios that count first packets, with four times as many
	tests/soak.sh docs/soak.md

# Measures, for some minutes, and writes docs/benchmarks.md: ROUNDS=60 make bench for more rounds. Wants a machine with nothing else to do.
bench: install needs release ## Measures, and writes docs/benchmarks.md
	cargo build --release --package bench
	$(target)/release/packets

# New connections to 1,000 published ports against one plain rule, and how long 10,000 ports take to load: some minutes.
bench-inbound: install needs release ## Measures what calls to published ports cost
	cargo build --release --package bench
	$(target)/release/inbound

# Instructions for a packet, in the same virtual machine: the same within a percent, whatever else the machine does. Writes docs/instructions.md.
count: install needs release ## Counts the instructions of a packet, in the virtual machine, and writes docs/instructions.md
	tests/install.sh tests/vm/packages
	cargo build --release --package bench
	COUNTING=1 PAGE=docs/instructions.md tests/vm/run.sh $(target)/release/count

# The packages that demo and test use, on Debian 12.
install: ## Installs the Debian packages that demo and test use
	tests/install.sh

# Says what is missing, and installs nothing.
needs:
	@tests/needs.sh
needs-go:
	@tests/needs.sh go

# What a build needs, in a line each, instead of what a build script says of it.
needs-build:
	@packaging/needs.sh cargo cc protoc

# The tests run this binary: what a user gets, not what they were built with.
release: needs-build ## Builds the programs: target/release/egressd and kubectl-egress
	@echo 'make: builds egressd, optimised: some minutes the first time'
	cargo build --release

# What the chart installs: static binaries and an archive to load, in target/image. The flag for the last crate alone spares a second build
# of the others; what was linked before is put back, for whoever runs it.
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image: needs-build ## Builds static binaries and a container image: target/image
	for program in egressd kubectl-egress; do \
	  cargo rustc --release --bin $$program -- -C target-feature=+crt-static && \
	  install -D --mode 755 $(target)/release/$$program $(target)/image/$$program || exit 1; done
	cargo rustc --release --package egressd-cloud --bin egressd-cloud -- -C target-feature=+crt-static
	install -D --mode 755 $(target)/release/egressd-cloud $(target)/image/egressd-cloud
	install -D --mode 644 /etc/ssl/certs/ca-certificates.crt $(target)/image/ca-certificates.crt
	image/archive.sh $(target)/image egressd:$(version) $(target)/image/egressd.tar
	cargo build --release

# A Debian package, a tarball of the same files, the bill of materials, and kubectl's plugin for krew. The binaries need the C library of this
# machine or a newer one; `make image` has static ones, which need none.
packages: needs-packages release ## Builds a Debian package, a tarball, a bill of materials and a krew plugin (RELEASES=https://...): target/packages
	packaging/build.sh $(target)/release $(target)/packages $(RELEASES)

next-version: ## Makes the tree a new version's, and prints the notes: VERSION=0.2.0 make next-version
	@packaging/release.sh '$(VERSION)'

# Says what is missing, and installs nothing: this may be a server with an engine of its own.
needs-packages:
	@packaging/needs.sh

# A site of the pages in docs, by mdBook (`cargo install mdbook`). Links that lead out of docs go to the repository.
site: ## Builds a site of the documentation with mdBook: REPOSITORY=https://... make site
	packaging/site.sh $(target)/site '$(REPOSITORY)'

# A current Docker Engine beside Debian's, from the Go module that tests/engines/go.mod names. Minutes once for all clones of it, then nothing.
engines:
	@echo 'make: a current Docker engine: three minutes the first time'
	tests/engines/build.sh $(target)/tmp/engine

# The programs of a Kubernetes cluster, and nerdctl, from the Go modules below tests/cluster/programs. Ten minutes once
# for all clones, then nothing.
cluster:
	@echo 'make: the programs of a Kubernetes cluster: ten minutes the first time'
	tests/cluster/build.sh $(target)/tmp/cluster

# The files of a clean Debian, which the package is installed in. Half a minute once for all clones, then nothing.
debian:
	tests/debian.sh $(target)/tmp/debian.tar

# The program for the cloud's side, and the EC2 emulator that its tests use, from Python's registry: half a minute once for all clones.
cloud: needs-build
	cargo build --release --package egressd-cloud
	tests/cloud/build.sh $(target)/tmp/cloud

lint: ## Format, clippy, documentation of the code
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# What is generated from the types is what is committed.
generated: release ## What is generated is what is committed
	$(target)/release/egressd crd | diff <(awk 'FNR == 1 && NR > 1 { print "---" } { print }' crds/*.yaml) -
	diff -r crds charts/egressd/files/crds
	$(target)/release/egressd reference | diff docs/reference.md -

# Licences, banned crates and where crates come from. Builds cargo-deny once, into the cache.
deny := 0.20.2
tools := $(cache)/cargo-deny-$(deny)
licences: ## Licences, banned crates, sources of crates
	@[ -x $(tools)/bin/cargo-deny ] || cargo install --quiet --locked --root $(tools) --target-dir $(target)/tools --version $(deny) cargo-deny
	$(tools)/bin/cargo-deny --locked check licenses bans sources
