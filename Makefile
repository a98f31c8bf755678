# Everything a newcomer, a developer and CI run. `make` alone lists it.

SECONDS ?=
MINUTES ?= 10
SEEDS ?= 100
TARGET ?=
INN := target/debug/inn
CARGO := cargo

.PHONY: help
help:
	@echo "make demo [SECONDS=20]  build all, and see it work on real input"
	@echo "make test               all tests"
	@echo "make chaos [MINUTES=10] kill, freeze and cut off hosts and their database for so long"
	@echo "make simulate [SEEDS=100] weeks of faults under simulated time, so many"
	@echo "make fuzz [TARGET=cel]  made-up uploads, requests and texts, until stopped or for MINUTES=N; INN_SEED=N once"
	@echo "make lint               rustfmt and clippy, warnings denied"
	@echo "make bench [SECONDS=5]  what this machine can do, optimised"
	@echo "make install            install inn into cargo's bin folder"

.PHONY: demo
demo: setup guests
	$(CARGO) build --locked -p inn
	$(INN) demo $(if $(SECONDS),--seconds $(SECONDS))

.PHONY: test
test: setup guests postgres
	$(CARGO) test --locked --workspace
	cd plugins && CARGO_TARGET_DIR=../target $(CARGO) test --locked

# SQLite one half of the time, PostgreSQL the other; then bugs put in on purpose. INN_SEED=N repeats a seed.
.PHONY: chaos
chaos: setup postgres
	MINUTES=$(MINUTES) $(CARGO) test --locked -p inn --test chaos

# Weeks of fifty triggers each under simulated time; then bugs put in on purpose. INN_SEED=N begins with that seed.
.PHONY: simulate
simulate: setup
	INN_SEEDS=$(SEEDS) $(CARGO) test --locked --workspace --test simulation -- --nocapture --test-threads 1

# Without an end, or MINUTES=N; TARGET=cel alone. INN_SEED=N TARGET=cel repeats what was found: that seed, once.
.PHONY: fuzz
fuzz: setup
	TARGET=$(TARGET) MINUTES=$(if $(filter file,$(origin MINUTES)),0,$(MINUTES)) $(CARGO) test --locked -p inn --test fuzz

.PHONY: lint
lint: setup
	$(CARGO) fmt --check
	cd plugins && $(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd plugins && CARGO_TARGET_DIR=../target $(CARGO) clippy --locked --all-targets -- -D warnings

.PHONY: bench
bench: setup
	$(CARGO) build --locked --release -p inn
	target/release/inn bench warm $(if $(SECONDS),--seconds $(SECONDS))
	target/release/inn bench starts $(if $(SECONDS),--seconds $(SECONDS))
	target/release/inn bench fairness $(if $(SECONDS),--seconds $(SECONDS))
	target/release/inn bench neighbours $(if $(SECONDS),--seconds $(SECONDS))

.PHONY: install
install: setup
	$(CARGO) install --locked --path host/inn

# The plugins, for wasm32-wasip2. Does nothing when they are up to date.
.PHONY: guests
guests: setup
	@plugins/build

# PostgreSQL's server, for the tests. Does nothing when it is there.
.PHONY: postgres
postgres:
	@tests/support/install-postgres

.PHONY: setup
setup:
	@command -v $(CARGO) >/dev/null || { echo "Rust 1.95 or newer is needed: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is needed, for SQLite: apt-get install build-essential"; exit 1; }
