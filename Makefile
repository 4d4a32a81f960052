# make demo: shows it, on Debian 12 as root with Rust; make test: proves it. CONTRIBUTING.md has the rest.
SHELL := /bin/bash
target := $(abspath $(or $(CARGO_TARGET_DIR),target))

.PHONY: demo test install needs release engines lint

demo: install release
	cargo test --quiet --test demo

test: needs release engines
	cargo test --workspace

# The packages that demo and test use, on Debian 12.
install:
	tests/install.sh

# Says what test misses, and installs nothing.
needs:
	@tests/needs.sh go

# The tests run this binary: what a user gets, not what they were built with.
release:
	cargo build --release

# A current Docker Engine beside Debian's, from the Go module that tests/engines/go.mod names. Minutes once, then nothing.
engines:
	tests/engines/build.sh $(target)/tmp/engine

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
