# Each target installs what it needs on a bare Debian 12 with Rust; see scripts/prepare.
.PHONY: demo test bench lint build

export CARGO_TERM_COLOR ?= auto

demo:
	@scripts/prepare demo
	@cargo build --quiet --release --package portolan
	@target/release/portolan lab demo --examples examples

test:
	@scripts/prepare test
	cargo build --package portolan
	cargo test --workspace --no-fail-fast

bench:
	@scripts/prepare test
	cargo build --release --package portolan --package xtask
	target/release/xtask bench
	target/release/xtask scale
	target/release/xtask loadbalancer
	target/release/xtask endpoints
	PORTOLAN_SCALE_PODS=10000 cargo test --release --package portolan-controllers --test scale -- --nocapture
	cargo run --release --package xtask -- api

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: cargo install cargo-deny"; fi

build:
	cargo build --release --package portolan
