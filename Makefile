# Cascade: "make" builds the three programs, "make demo" shows them at work,
# "make test" tests them, "make install" puts them under PREFIX.
# CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are yours to set; a change of
# the first four builds everything anew. All but the programs lies in build/.

CC = cc
CFLAGS = -O2 -g
LDFLAGS =
PREFIX = /usr/local
PYTHON = python3

WARNINGS = -Wall -Wextra -pedantic -Wshadow -Wconversion
FLAGS = -std=c11 $(WARNINGS) -I. -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_FILE_OFFSET_BITS=64
COMPILE = $(CC) $(FLAGS) $(CPPFLAGS) $(CFLAGS)

# A process is forked faster when the linker has nothing left to do in it and
# when it has few mappings. Linkers that don't know these options go without.
FEW_PAGES := -Wl,-z,now,-z,noseparate-code
FEW_PAGES := $(shell echo 'int main(void) { return 0; }' | \
	$(CC) $(CFLAGS) $(LDFLAGS) $(FEW_PAGES) -x c -o /dev/null - 2>/dev/null && echo $(FEW_PAGES))

PROGRAMS = cascade tracker mkcascade
MODULES = $(patsubst %.c,build/%.o,csapp.c sha256.c peer_serve.c $(wildcard base/*.c net/*.c file/*.c fetch/*.c serve/*.c))
UNITS = $(patsubst tests/%.c,build/%,$(wildcard tests/unit/*.c))
BENCHES = $(patsubst %.c,build/%,$(wildcard bench/*.c))

all: $(PROGRAMS)

# From an archive each program gets only what it uses.
$(PROGRAMS): %: build/%.o build/modules.a
	$(CC) $(CFLAGS) $(LDFLAGS) $(FEW_PAGES) -o $@ $^ $(LDLIBS)

build/modules.a: $(MODULES)
	rm -f $@
	ar rcs $@ $(MODULES)

# -MMD writes down which headers each object is made from.
build/%.o: %.c build/flags
	@mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

units: $(UNITS)

# A unit test that includes a module's source has its own copy of that module.
build/unit/%: tests/unit/%.c build/modules.a
	@mkdir -p $(@D)
	$(COMPILE) $(LDFLAGS) -MMD -MP -o $@ $< build/modules.a -pthread $(LDLIBS)

# The floors are linked as the programs are: they should need no more pages than they.
build/bench/%: bench/%.c build/modules.a
	@mkdir -p $(@D)
	$(COMPILE) $(LDFLAGS) -MMD -MP $(FEW_PAGES) -o $@ $< build/modules.a $(LDLIBS)

# Written anew only when the flags have changed.
build/flags: always
	@mkdir -p $(@D)
	@echo '$(COMPILE) $(LDFLAGS) $(LDLIBS)' | cmp -s - $@ || echo '$(COMPILE) $(LDFLAGS) $(LDLIBS)' > $@

-include $(wildcard build/*.d build/*/*.d)

demo: all
	sh tests/demo.sh

test: all units
	$(PYTHON) tests/run.py

soak: all units benches
	$(PYTHON) tests/soak.py
	CASCADE_KILLS=200 $(PYTHON) tests/run.py -k Kill

benches: $(BENCHES)

# As in make bench BENCH="--size 64M --only rsync"; bench/bench.py --help tells the options.
bench: all benches
	$(PYTHON) bench/bench.py $(BENCH)

bench-serve: benches
	$(PYTHON) bench/serve.py

install: all
	mkdir -p $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf $(PROGRAMS) build

.PHONY: all always units benches demo test soak bench bench-serve install clean
.SECONDARY:
