# Cascade: "make" builds the three programs, "make demo" shows them at work,
# "make test" tests them, "make install" puts them under PREFIX, "make static" builds
# programs to copy to other machines, "make dist" makes a tarball of what is committed.
# CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX, MANPREFIX and DESTDIR are yours to set; a change
# of the first four builds everything anew. All but the programs lies in build/.

CC = cc
CFLAGS = -O2 -g
LDFLAGS =
PREFIX = /usr/local
MANPREFIX = $(PREFIX)/share/man
PYTHON = python3

WARNINGS = -Wall -Wextra -pedantic -Wshadow -Wconversion
# _DEFAULT_SOURCE: to ask for POSIX would hide on BSDs and macOS what is not in it.
FLAGS = -std=c11 $(WARNINGS) -I. -D_DEFAULT_SOURCE -D_FILE_OFFSET_BITS=64
COMPILE = $(CC) $(FLAGS) $(SECTIONS) $(CPPFLAGS) $(CFLAGS)
LINK = $(LDFLAGS) $(DROP_UNUSED) $(FEW_PAGES)

# $(call known,OPTIONS): these options, if the compiler and its linker know them.
known = $(shell echo 'int main(void) { return 0; }' | \
	$(CC) $(CFLAGS) $(LDFLAGS) $(1) -x c -o /dev/null - 2>/dev/null && echo '$(1)')

# A process is forked faster when the linker has nothing left to do in it and
# when it has few mappings.
FEW_PAGES = -Wl,-z,now,-z,noseparate-code
FEW_PAGES := $(call known,$(FEW_PAGES))

# The linker drops the functions that a program doesn't use. Else csapp.c, which has
# all of the book's wrappers, would bring those for threads into every program.
SECTIONS := -ffunction-sections -fdata-sections
DROP_UNUSED := -Wl,--gc-sections
DROP_UNUSED := $(call known,$(SECTIONS) $(DROP_UNUSED))
SECTIONS := $(filter-out -Wl%,$(DROP_UNUSED))
DROP_UNUSED := $(filter -Wl%,$(DROP_UNUSED))

PROGRAMS = cascade tracker mkcascade
VERSION = $(shell sed -n 's/^\#define VERSION "\(.*\)"/\1/p' base/args.c)
MODULES = $(patsubst %.c,build/%.o,csapp.c sha256.c peer_serve.c $(wildcard base/*.c net/*.c file/*.c fetch/*.c serve/*.c track/*.c))
UNITS = $(patsubst tests/%.c,build/%,$(wildcard tests/unit/*.c tests/exercises/*.c))
BENCHES = $(patsubst %.c,build/%,$(wildcard bench/*.c))

FOLDERS = $(addprefix build/,base net file fetch serve track sim unit exercises bench torture)

all: $(PROGRAMS)

$(PROGRAMS): %: build/%.o build/modules.a
	$(CC) $(CFLAGS) $(LINK) -o $@ $^ $(LDLIBS)

build/modules.a: $(MODULES)
	rm -f $@
	ar rcs $@ $(MODULES)

# -MMD writes down which headers each object is made from.
build/%.o: %.c build/flags
	$(COMPILE) -MMD -MP -c -o $@ $<

units: $(UNITS)

# A unit test that includes a module's source has its own copy of that module.
build/unit/%: tests/unit/%.c build/modules.a
	$(COMPILE) $(LDFLAGS) -MMD -MP -o $@ $< build/modules.a -pthread $(LDLIBS)

# The simulation has its own connections in place of those of fetch/dial.c.
build/sim/sim: $(patsubst %.c,build/%.o,$(wildcard sim/*.c)) build/modules.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) -lm $(LDLIBS)

build/exercises/%: tests/exercises/%.c build/modules.a
	$(COMPILE) $(LDFLAGS) -MMD -MP -o $@ $< build/modules.a -pthread $(LDLIBS)

# The floors are linked as the programs are: they should need no more pages than they.
build/bench/%: bench/%.c build/modules.a
	$(COMPILE) $(LINK) -MMD -MP -o $@ $< build/modules.a $(LDLIBS)

# Written anew only when the flags have changed. All is made after it, so it makes the folders.
build/flags: always
	@mkdir -p $(FOLDERS)
	@echo '$(COMPILE) $(LDFLAGS) $(LDLIBS)' | cmp -s - $@ || echo '$(COMPILE) $(LDFLAGS) $(LDLIBS)' > $@

-include $(wildcard build/*.d build/*/*.d build/*/*/*.d build/*/*/*/*.d)

demo: all
	sh tests/demo.sh

test: all units build/sim/sim
	$(PYTHON) tests/run.py

# cascade-push onto machines that are network namespaces: with root, ip and sshd.
lab: all
	$(PYTHON) tests/run.py tests/lab.py

# As in make sim SIM=-l, which adds the swarms that take minutes.
sim: build/sim/sim
	build/sim/sim $(SIM)
	build/sim/sim -m 1000

soak: all units benches
	$(PYTHON) tests/soak.py
	CASCADE_KILLS=200 $(PYTHON) tests/run.py -k Kill

# Linux with glibc only: it stands before the C library's functions.
build/torture/fail.so: tests/torture/fail.c build/flags
	$(CC) -std=c11 -O2 -g -fPIC -shared -Wall -Wextra -o $@ $< -ldl

# As in make torture TORTURE="--part 20", or TORTURE="fetch/pwrite.3=EIO".
torture: all build/torture/fail.so
	$(PYTHON) tests/torture.py $(TORTURE)

# With each change to a file the power fails: what is on the disk then is enough to go on.
powerloss: all build/torture/fail.so
	$(PYTHON) tests/powerloss.py $(POWERLOSS)

# As in make coverage COVERAGE="--torture '--part 10'".
coverage:
	$(PYTHON) tests/coverage.py $(COVERAGE)

# As in make mutants MUTANTS="--part 10 file/check.c".
mutants:
	$(PYTHON) tests/mutate.py $(MUTANTS)

# The fuzzers: with libFuzzer where FUZZ_CC has it, else with tests/fuzz/plain.c. Their own
# copies of the modules are built with the sanitizers.
FUZZERS = $(patsubst tests/fuzz/fuzz_%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_CC = clang
FUZZ_CFLAGS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_DRIVER = $(shell echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	$(FUZZ_CC) -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null && echo -fsanitize=fuzzer || echo tests/fuzz/plain.c)
FUZZ_MODULES = $(patsubst %.c,build/fuzz/%.o,$(patsubst build/%.o,%.c,$(MODULES)))

build/fuzz/%.o: %.c build/flags
	@mkdir -p $(@D)
	$(FUZZ_CC) $(FLAGS) $(CPPFLAGS) $(FUZZ_CFLAGS) $(if $(filter -f%,$(FUZZ_DRIVER)),-fsanitize=fuzzer-no-link) -MMD -MP -c -o $@ $<

build/fuzz/modules.a: $(FUZZ_MODULES)
	rm -f $@
	ar rcs $@ $(FUZZ_MODULES)

build/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h tests/fuzz/plain.c tests/fuzz/quiet.c build/fuzz/modules.a
	$(FUZZ_CC) $(FLAGS) $(CPPFLAGS) $(FUZZ_CFLAGS) -o $@ $< tests/fuzz/quiet.c $(FUZZ_DRIVER) build/fuzz/modules.a -pthread $(LDLIBS)

fuzzers: $(FUZZERS)

# As in make fuzz FUZZ="--seconds 600 tracker_answer".
fuzz: fuzzers
	$(PYTHON) tests/fuzz.py $(FUZZ)

benches: $(BENCHES)

# As in make bench BENCH="--size 64M --only rsync"; bench/bench.py --help tells the options.
bench: all benches
	$(PYTHON) bench/bench.py $(BENCH)

bench-serve: benches
	$(PYTHON) bench/serve.py

demo-push: all
	$(PYTHON) tests/demo_push.py

# Where everything is installed.
BIN = $(DESTDIR)$(PREFIX)/bin
MAN = $(DESTDIR)$(MANPREFIX)
BASH = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
COMMANDS = $(PROGRAMS) cascade-push

install: all
	mkdir -p $(BIN) $(MAN)/man1 $(MAN)/man5 $(MAN)/man7 $(BASH) $(ZSH)
	install -m 755 $(COMMANDS) $(BIN)
	for page in man/*; do install -m 644 $$page $(MAN)/man$${page##*.}; done
	for command in $(COMMANDS); do install -m 644 completion/cascade.bash $(BASH)/$$command; done
	install -m 644 completion/_cascade $(ZSH)

uninstall:
	for command in $(COMMANDS); do rm -f $(BIN)/$$command $(BASH)/$$command; done
	for page in man/*; do rm -f $(MAN)/man$${page##*.}/$${page#man/}; done
	rm -f $(ZSH)/_cascade

# Programs that need no library, in static/: for this kind of machine, and for aarch64 if
# there is a compiler for it; with musl if it is there, which makes them small. The same
# sources and compiler make the same bytes.
MACHINE := $(shell uname -m)
MUSL := $(shell command -v musl-gcc)
CROSS := $(shell command -v aarch64-linux-gnu-gcc)
CROSS_MACHINE = $(if $(CROSS),$(filter-out $(MACHINE),aarch64))
STATIC_CC = $(if $(MUSL),musl-gcc,$(CC))
CROSS_CC = $(or $(shell command -v aarch64-linux-musl-gcc),$(CROSS))
STATIC = $(foreach machine,$(MACHINE) $(CROSS_MACHINE),$(PROGRAMS:%=static/%-$(machine)))
STATIC_FLAGS = $(FLAGS) -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables
STATIC_LINK = -static -s -Wl,--gc-sections,--build-id=none,--no-warnings,-z,now,-z,noseparate-code
SMALL = -Os

# $(call static_rules,MACHINE,COMPILER). Small, but for the hash: with -Os it takes a third
# longer. In a static program musl makes nothing read-only after the start, so what relro
# would pad, to 64 KiB on aarch64, is left out.
define static_rules
build/static/$(1)/sha256.o: SMALL = -O2
build/static/$(1)/%.o: %.c build/flags
	@mkdir -p $$(@D)
	$(2) $(STATIC_FLAGS) $$(SMALL) -MMD -MP -c -o $$@ $$<

static/%-$(1): build/static/$(1)/%.o $(MODULES:build/%=build/static/$(1)/%)
	@mkdir -p $$(@D)
	$(2) $(STATIC_LINK) $(if $(findstring musl,$(2)),-z norelro) -o $$@ $$^
endef
$(foreach machine,$(MACHINE) $(CROSS_MACHINE),$(eval \
	$(call static_rules,$(machine),$(if $(filter $(MACHINE),$(machine)),$(STATIC_CC),$(CROSS_CC)))))

static: $(STATIC)
	cd static && sha256sum $(STATIC:static/%=%) > SHA256SUMS

dist:
	git archive --prefix=cascade-$(VERSION)/ -o cascade-$(VERSION).tar.gz HEAD

clean:
	rm -rf $(PROGRAMS) build static cascade-*.tar.gz

.PHONY: all always units benches demo demo-push test lab sim soak torture powerloss coverage mutants fuzzers fuzz \
	bench bench-serve install uninstall static dist clean
.SECONDARY:
