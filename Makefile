# libextism: build it, try it, test it, install it. `make help` lists the targets.

PREFIX       ?= /usr/local
LIBDIR       ?= $(PREFIX)/lib
INCLUDEDIR   ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

CARGO   ?= cargo
CFLAGS  ?= -O2
INSTALL ?= install

BUILT   := $(abspath $(or $(CARGO_TARGET_DIR),target)/release)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DEMOS   := hello host_function

# Cargo knows best what is out of date, and uses all processors by itself.
.NOTPARALLEL:
.PHONY: all library pkgconfig demo test fuzz asan tsan valgrind soak lint header install uninstall clean help

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

valgrind: library  ## examples and tests under memcheck; PARTS="examples c rust" chooses
	EXTISM_LIB=$${EXTISM_LIB:-$(BUILT)/libextism.so} tests/long/valgrind.sh $(PARTS)

soak: library  ## ten million calls, 100,000 plug-ins; SOAK_CALLS, SOAK_PLUGINS, SOAK_THREADS
	EXTISM_LIB=$${EXTISM_LIB:-$(BUILT)/libextism.so} tests/long/soak.sh

lint:  ## formatting, clippy, documentation, the header, the licences of dependencies
	$(CARGO) fmt --all --check
	find .ci tests c-examples examples -type f \( -name '*.sh' -o -path .ci/run \) -print0 | xargs -0 -n 1 bash -n
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --workspace check bans licenses sources; \
	else echo 'cargo-deny is not installed: dependencies are not checked'; fi
	tests/steps/15-header.sh
	$(CARGO) clippy --locked -p libextism --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

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
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
