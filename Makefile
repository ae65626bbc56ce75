# libextism: build it, try it, test it, install it. `make help` lists the targets.

PREFIX       ?= /usr/local
LIBDIR       ?= $(PREFIX)/lib
INCLUDEDIR   ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

CARGO   ?= cargo
CFLAGS  ?= -O2
INSTALL ?= install

SYMBOLS := $(abspath $(or $(CARGO_TARGET_DIR),target)/symbols)/libextism.so
BUILT   := $(abspath $(or $(CARGO_TARGET_DIR),target)/release)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DEMOS   := hello host_function

# Cargo knows best what is out of date, and uses all processors by itself.
.NOTPARALLEL:
.PHONY: all library pkgconfig demo test fuzz asan tsan valgrind soak bombs lint header install uninstall clean help
.PHONY: bench bench-quick bench-real bench-curves bench-peers bench-profile bench-winch bench-docs bench-all bench-tools

all: library pkgconfig  ## the shared and the static library, and their .pc files

library:
	$(CARGO) build --release --locked -p libextism

pkgconfig:
	@mkdir -p build
	@for name in extism extism-static; do \
		sed -e 's|@PREFIX@|$(PREFIX)|' \
		    -e 's|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' \
		    -e 's|@INCLUDEDIR@|$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)|' \
		    -e 's|@VERSION@|$(VERSION)|' \
		    packaging/pkgconfig/$$name.pc.in > build/$$name.pc || exit 1; \
	done

demo: library  ## compile and run two examples; needs nothing but Rust and a C compiler
	@mkdir -p build/demo
	@for name in $(DEMOS); do \
		printf '\n== c-examples/%s.c\n' $$name; \
		$(CC) $(CFLAGS) -Iinclude c-examples/$$name.c -o build/demo/$$name \
			-L$(BUILT) -lextism -Wl,-rpath,$(BUILT) || exit 1; \
		(cd c-examples && ../build/demo/$$name) || exit 1; \
	done

test: all  ## run all tests; TEST_STRICT=1 turns skips into failures, STEPS="abi install" chooses
	EXTISM_LIB=$${EXTISM_LIB:-$(BUILT)/libextism.so} tests/run.sh $(STEPS)

fuzz:  ## fuzz for FUZZ_SECONDS each; FUZZ_TARGETS="memory manifest" chooses; needs cargo-fuzz
	tests/long/fuzz.sh

asan:  ## the suites under AddressSanitizer; PARTS="units library" chooses
	tests/long/asan.sh $(PARTS)

tsan:  ## the unit tests under ThreadSanitizer; needs the source of Rust's standard library
	tests/long/tsan.sh

# What is suppressed goes by the names of functions.
valgrind:  ## examples and tests under memcheck; PARTS="examples c rust" chooses
	$(CARGO) build --profile symbols --locked -p libextism
	EXTISM_LIB=$${EXTISM_LIB:-$(SYMBOLS)} tests/long/valgrind.sh $(PARTS)

bombs: library  ## modules that are dear to compile, up to the dearest that passes
	EXTISM_LIB=$${EXTISM_LIB:-$(BUILT)/libextism.so} tests/long/bombs.sh

soak: library  ## ten million calls, 100,000 plug-ins; SOAK_CALLS, SOAK_PLUGINS, SOAK_THREADS
	EXTISM_LIB=$${EXTISM_LIB:-$(BUILT)/libextism.so} tests/long/soak.sh

lint:  ## formatting, clippy, documentation, the header, the licences of dependencies
	$(CARGO) fmt --all --check
	find .ci benches tests c-examples examples -type f \( -name '*.sh' -o -path .ci/run \) -print0 | xargs -0 -n 1 bash -n
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --workspace check bans licenses sources; \
	else echo 'cargo-deny is not installed: dependencies are not checked'; fi
	tests/steps/15-header.sh
	$(CARGO) clippy --locked -p libextism --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

# Benchmarks: docs/performance.md. BENCH chooses metrics by words of their names; BENCH_BUILD is the profile that
# Cargo builds with, whose library is measured unless EXTISM_LIB names another.
BENCH       ?=
BENCH_BUILD ?= release
BENCH_BUILT := $(abspath $(or $(CARGO_TARGET_DIR),target)/$(BENCH_BUILD))
CACHE       ?= $(abspath build/cache)
BENCH_ENV    = EXTISM_LIB=$${EXTISM_LIB:-$(BENCH_BUILT)/libextism.so} BENCH_FLOOR=$(BENCH_BUILT)/bench-floor CACHE=$(CACHE)
BENCH_ONLY   = $(if $(BENCH),--only '$(BENCH)')

# Both packages at once, and no feature of Wasmtime that the library does not have: so they share one build of it.
bench-tools: build/bench/worker
	$(CARGO) build --profile $(BENCH_BUILD) --locked -p libextism -p bench-floor
	CACHE=$(CACHE) tests/fetch/reference.sh
	CACHE=$(CACHE) tests/fetch/go-sdk.sh

build/bench/worker: $(wildcard benches/worker/*) include/extism.h
	@mkdir -p build/bench
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Iinclude benches/worker/*.c -o $@ -pthread -ldl

bench: bench-tools  ## measure against libextism 1.41; BENCH=echo,alive chooses, BENCH_BUILD=fast
	$(BENCH_ENV) benches/run.py $(BENCH_ONLY)

bench-quick: bench-tools  ## the same with few samples
	$(BENCH_ENV) benches/run.py --quick $(BENCH_ONLY)

bench-real: bench-tools  ## real plug-ins: new, again, calls
	-CACHE=$(CACHE) tests/fetch/as-pdk.sh
	-CACHE=$(CACHE) tests/fetch/rust-pdk.sh
	-CACHE=$(CACHE) benches/fetch/programs.sh
	$(BENCH_ENV) benches/run.py --real $(BENCH_ONLY)

bench-curves: bench-tools  ## how the cost grows: threads, sizes, plug-ins, blocks
	$(BENCH_ENV) benches/curves.py $(BENCH_ONLY)

bench-peers: bench-tools  ## the other Extism runtimes: JavaScript, Go, Chicory
	$(BENCH_ENV) benches/peers.py $(BENCH_ONLY)

# With the names of functions: the release library but for that, in a folder of its own.
bench-profile: build/bench/worker  ## where time, memory and bytes of some metrics go, BENCH=call_empty; needs valgrind, perf
	$(CARGO) build --profile symbols --locked -p libextism
	CACHE=$(CACHE) tests/fetch/reference.sh
	CACHE=$(CACHE) tests/fetch/go-sdk.sh
	EXTISM_LIB=$${EXTISM_LIB:-$(SYMBOLS)} CACHE=$(CACHE) \
		benches/profile.py $(BENCH)

bench-winch: bench-tools  ## compile times of Winch, which wants a Wasmtime of its own (many minutes)
	CARGO_TARGET_DIR=build/winch $(CARGO) build --profile $(BENCH_BUILD) --locked -p bench-floor --features winch
	BENCH_FLOOR=build/winch/$(BENCH_BUILD)/bench-floor CACHE=$(CACHE) benches/winch.py

bench-docs:  ## put the last complete runs into README.md and docs
	benches/docs.py

bench-all: bench bench-real bench-curves bench-peers bench-profile bench-docs  ## everything, for a machine that has nothing else to do

header:  ## write include/extism.h from src/ffi
	@mkdir -p include
	$(CARGO) run --quiet --locked -p header -- include/extism.h

install: pkgconfig  ## copy what `make` built; PREFIX, DESTDIR, LIBDIR as usual
	@test -e $(BUILT)/libextism.so || { echo 'nothing is built yet: run make first' >&2; exit 1; }
	$(INSTALL) -d '$(DESTDIR)$(INCLUDEDIR)' '$(DESTDIR)$(LIBDIR)' '$(DESTDIR)$(PKGCONFIGDIR)'
	$(INSTALL) -m 644 include/extism.h '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 755 $(BUILT)/libextism.so '$(DESTDIR)$(LIBDIR)'
	$(INSTALL) -m 644 $(BUILT)/libextism.a '$(DESTDIR)$(LIBDIR)'
	$(INSTALL) -m 644 build/extism.pc build/extism-static.pc '$(DESTDIR)$(PKGCONFIGDIR)'

uninstall:  ## remove what `make install` copied
	rm -f '$(DESTDIR)$(INCLUDEDIR)/extism.h' \
		'$(DESTDIR)$(LIBDIR)/libextism.so' '$(DESTDIR)$(LIBDIR)/libextism.a' \
		'$(DESTDIR)$(PKGCONFIGDIR)/extism.pc' '$(DESTDIR)$(PKGCONFIGDIR)/extism-static.pc'

clean:  ## remove everything that was built or downloaded
	$(CARGO) clean
	rm -rf build

help:
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done
