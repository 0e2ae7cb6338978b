# The commands of the project. `make test` and `make demo` need a Rust toolchain and nothing else:
# on Debian and Ubuntu they install the rest, as root or through sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help test test-versions demo bench lint soak fuzz fuzz-smoke postgres-versions prerequisites linters

# Where rustup puts cargo, for shells that have not been restarted since.
export PATH := $(HOME)/.cargo/bin:$(PATH)

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile

# What to do where tests fail, with the file of what they printed: continuous integration gives them a second chance.
AGAIN ?= false

# Two million power cuts, every outcome of every short life of a journal, ten thousand lives of a link, every
# mistake on purpose, and whether the README's tables of the journal have the columns that `make bench` writes.
test: prerequisites ## all tests, the end-to-end ones on real Postgres servers included
	ran=$$(mktemp)
	trap 'rm -f "$$ran"' EXIT
	(
	    export THINWIRE_CRASHES=$${THINWIRE_CRASHES:-2000000} THINWIRE_SCOPE=$${THINWIRE_SCOPE:-4}
	    export THINWIRE_LINK_SEEDS=$${THINWIRE_LINK_SEEDS:-10000} THINWIRE_LINK_DAYS=$${THINWIRE_LINK_DAYS:-30}
	    cargo test --workspace --exclude thinwire-fuzz --no-fail-fast 2>&1 | tee "$$ran" || $(AGAIN) "$$ran"
	)
	THINWIRE_TESTS_RAN=$$ran cargo test --workspace --exclude thinwire-fuzz --test tap
	cargo test -p thinwire-engine --features mutants --test mutants
	THINWIRE_BENCH=smoke cargo test -p thinwire-engine --bench journal >/dev/null

# The tests across versions find them there; what is not there, they do without, unless THINWIRE_PG_REQUIRED lists it.
postgres-versions: ## PostgreSQL 14 to 18 into target/postgres, for the tests across versions
	bench/cluster/versions.sh $${CARGO_TARGET_DIR:-target}/postgres

# All that captures and applies, and end to end what is said to a server and read from it: the schema, and what is chosen,
# published and identified. Keys, values and transactions are compared across versions by `make test`, which uses one of them
# for the rest; any other that is missing fails.
test-versions: postgres-versions ## the end-to-end tests on each version of PostgreSQL but the one that `make test` uses
	root=$$(realpath "$${CARGO_TARGET_DIR:-target}")/postgres
	ran=$$(mktemp)
	trap 'rm -f "$$ran"' EXIT
	some() { cargo test "$$@" 2>&1 | tee "$$ran" || $(AGAIN) "$$ran"; }
	used=$$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)
	for major in 14 15 16 17 18; do
	    case $$used in */"$$major"/bin/postgres) continue ;; esac
	    export THINWIRE_PG_BIN=$$root/$$major/bin
	    [ -x "$$THINWIRE_PG_BIN/postgres" ] || THINWIRE_PG_BIN=/usr/lib/postgresql/$$major/bin
	    "$$THINWIRE_PG_BIN/postgres" --version
	    some -p thinwire-capture -p thinwire-apply --test it --no-fail-fast -- --test-threads 4
	    some -p thinwire-sidecar --test it --no-fail-fast -- --test-threads 4 \
	        schema:: publication:: choice:: published:: bits:: --skip versions:: --skip are_chosen_on
	done

soak: prerequisites ## every process killed thirty times under load, a hundred million power cuts, 20,000 on real file systems, a million lives of a link, five on each rung, 24,000 tables
	THINWIRE_KILL_CYCLES=30 cargo test -p thinwire-sidecar --test it -- --nocapture kills
	THINWIRE_CRASHES=100000000 THINWIRE_SCOPE=5 THINWIRE_WORKLOADS=10000 THINWIRE_IMAGES=10000000 \
	    THINWIRE_RECOVERY_CRASHES=10000000 \
	    cargo test -p thinwire-engine --test it -- crash scope errors classify recovery
	THINWIRE_REAL_POWER_CUTS=5000 THINWIRE_REAL_FAILED_BLOCKS=1000 THINWIRE_REAL_FULL_CYCLES=1000 \
	    THINWIRE_REAL_CALLS_PERCENT=100 cargo test -p thinwire-engine --test real -- --nocapture
	THINWIRE_LINK_SEEDS=1000000 THINWIRE_LINK_DAYS=365 cargo test -p thinwire-transport --test it -- weather cut
	THINWIRE_LADDER_SEEDS=5 cargo test -p thinwire-transport --test it -- every_rung
	THINWIRE_STILL_SECONDS=60 cargo test -p thinwire-sidecar --test it -- --nocapture stands_still
	THINWIRE_SCHEMAS=2000 cargo test -p thinwire-sidecar --test it -- --nocapture values_of_every_type
	THINWIRE_CALL_CYCLES=200 cargo test -p thinwire-sidecar --test it -- --nocapture syscalls

# Seconds that each target is fuzzed for.
FUZZ_SECONDS ?= 600

fuzz: prerequisites ## everything that decodes foreign bytes, FUZZ_SECONDS each (600)
	fuzz/run.sh $(FUZZ_SECONDS)

fuzz-smoke: prerequisites ## the same for ten seconds each
	fuzz/run.sh 10

demo: prerequisites ## two databases, two sidecars and a thin link that drops, on this machine
	cargo build --release -p thinwire-sidecar -p thinwire-bench
	cargo run --quiet --release -p thinwire-bench --bin thinwire-bench -- demo

bench: ## the journal's figures, measured on this machine and written into the README
	cargo bench -p thinwire-engine -- --write $(CURDIR)/README.md

lint: linters ## formatting, clippy, documentation, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items
	answer=$$(cargo tree --workspace --edges all -i aws-lc-rs 2>&1) || true
	case $$answer in
	*"did not match any packages"* | *"nothing to print"*) ;;
	*)
	    echo "aws-lc-rs has crept in, or cargo cannot tell; ring is our cryptography:" >&2
	    echo "$$answer" >&2
	    exit 1
	    ;;
	esac
	if cargo deny --version >/dev/null 2>&1; then
	    cargo deny check bans licenses sources
	else
	    echo "cargo-deny is not installed; bans, licences and sources are not checked" >&2
	fi

linters:
	@if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
	    rustup component add rustfmt clippy
	fi

# A Postgres server and a C compiler (zstd and ring are C inside). The package would also create a
# database cluster and start it at each boot; nobody asked for that, so it is told not to.
prerequisites:
	@if ! command -v cargo >/dev/null; then
	    echo "There is no Rust toolchain: install one from https://rustup.rs and try again." >&2
	    exit 1
	fi
	has_server() {
	    for bin in "$${THINWIRE_PG_BIN:-}" /usr/lib/postgresql/*/bin $${PATH//:/ }; do
	        if [ -x "$$bin/initdb" ] && [ -x "$$bin/postgres" ] && [ -x "$$bin/pgbench" ]; then
	            return 0
	        fi
	    done
	    return 1
	}
	# What tests of real file systems and system calls need beside root. Without it they say so and are skipped.
	extra=()
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
	    for needed in mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs strace=strace; do
	        command -v "$${needed%=*}" >/dev/null || extra+=("$${needed#*=}")
	    done
	fi
	if [ $${#extra[@]} -gt 0 ]; then
	    echo "Installing $${extra[*]}"
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -q -y --no-install-recommends "$${extra[@]}" \
	        || echo "Some tests will be skipped without $${extra[*]}." >&2
	fi
	packages=()
	has_server || packages+=(postgresql)
	command -v cc >/dev/null || packages+=(gcc libc6-dev)
	# libFuzzer is C++.
	case " $(MAKECMDGOALS) " in
	*" fuzz"*) command -v c++ >/dev/null || packages+=(g++) ;;
	esac
	if [ $${#packages[@]} -eq 0 ]; then exit 0; fi
	as_root=()
	if ! command -v apt-get >/dev/null; then
	    echo "Please install a PostgreSQL server (version 14 or later) and a C compiler, and" \
	        "name the directory of initdb and postgres in THINWIRE_PG_BIN; only apt-get is" \
	        "known here. Missing as Debian names them: $${packages[*]}." >&2
	    exit 1
	elif [ "$$(id -u)" -ne 0 ]; then
	    if ! command -v sudo >/dev/null; then
	        echo "Please install as root: apt-get install $${packages[*]}" >&2
	        exit 1
	    fi
	    as_root=(sudo)
	fi
	echo "Installing $${packages[*]}"
	conf=/etc/postgresql-common/createcluster.d/thinwire.conf
	"$${as_root[@]}" mkdir -p "$${conf%/*}"
	echo 'create_main_cluster = false' | "$${as_root[@]}" tee "$$conf" >/dev/null
	put_back() {
	    "$${as_root[@]}" rm -f "$$conf"
	    "$${as_root[@]}" rmdir --ignore-fail-on-non-empty "$${conf%/*}"
	}
	trap put_back EXIT
	"$${as_root[@]}" apt-get update -q
	"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -q -y --no-install-recommends "$${packages[@]}"
