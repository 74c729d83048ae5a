# Cascade: "make" builds the three programs, "make demo" shows them at work,
# "make test" tests them, "make install" puts them under PREFIX.
# CC, CFLAGS, CPPFLAGS, LDFLAGS, PREFIX and DESTDIR are yours to set.

CC = cc
CFLAGS = -O2 -g
LDFLAGS =
PREFIX = /usr/local
PYTHON = python3

WARNINGS = -Wall -Wextra -pedantic -Wshadow -Wconversion
FLAGS = -std=c11 $(WARNINGS) -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_FILE_OFFSET_BITS=64

# A process is forked faster when the linker has nothing left to do in it and
# when it has few mappings. Linkers that don't know these options go without.
FEW_PAGES := -Wl,-z,now,-z,noseparate-code
FEW_PAGES := $(shell echo 'int main(void) { return 0; }' | \
	$(CC) $(CFLAGS) $(LDFLAGS) $(FEW_PAGES) -x c -o /dev/null - 2>/dev/null && echo $(FEW_PAGES))

PROGRAMS = cascade tracker mkcascade
COMMON = args.o csapp.o log.o metafile.o sha256.o wire.o
PEER = arrival.o check.o confine.o datafile.o fetch.o peer_fetch.o peer_serve.o process.o progress.o \
	serve_client.o shares.o swarm.o tracker_query.o transfer.o wanted.o \
	window.o
UNITS = $(basename $(wildcard tests/unit/*.c))

all: $(PROGRAMS)

cascade: cascade.o $(PEER) $(COMMON)
tracker: tracker.o $(COMMON)
mkcascade: mkcascade.o $(COMMON)

$(PROGRAMS):
	$(CC) $(CFLAGS) $(LDFLAGS) $(FEW_PAGES) -o $@ $^ $(LDLIBS)

.c.o:
	$(CC) $(FLAGS) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

units: $(UNITS)

$(UNITS): %: %.c tests/unit/unit.h tests/unit/rooms.a
	$(CC) $(FLAGS) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< tests/unit/rooms.a -pthread $(LDLIBS)

# What some of them include, beside that.
$(filter tests/unit/test_csapp_%,$(UNITS)): tests/unit/csapp_common.h
$(filter tests/unit/test_check_%,$(UNITS)): tests/unit/check_common.h process.c
tests/unit/test_wire: wire.c

# From an archive a test gets only what it doesn't define itself.
tests/unit/rooms.a: $(PEER) $(COMMON)
	rm -f $@
	ar rcs $@ $(PEER) $(COMMON)

# Each object, and the headers that it is made from.
args.o: args.h log.h sha256.h wire.h
arrival.o: arrival.h check.h datafile.h fetch.h log.h metafile.h peer_fetch.h progress.h sha256.h shares.h swarm.h transfer.h wanted.h wire.h
cascade.o: args.h check.h csapp.h datafile.h fetch.h log.h metafile.h peer_serve.h process.h sha256.h wire.h
check.o: check.h log.h metafile.h process.h sha256.h window.h
confine.o: confine.h
csapp.o: csapp.h
datafile.o: check.h datafile.h log.h metafile.h sha256.h
fetch.o: arrival.h check.h clock.h datafile.h fetch.h log.h metafile.h peer_fetch.h progress.h sha256.h shares.h swarm.h tracker_query.h wanted.h wire.h
log.o: log.h
metafile.o: csapp.h metafile.h sha256.h wire.h
mkcascade.o: args.h csapp.h log.h metafile.h sha256.h wire.h
peer_fetch.o: clock.h peer_fetch.h sha256.h shares.h wire.h
peer_serve.o: clock.h confine.h datafile.h log.h metafile.h peer_serve.h process.h progress.h serve_client.h sha256.h tracker_query.h wanted.h wire.h
process.o: log.h process.h
progress.o: clock.h datafile.h log.h metafile.h progress.h sha256.h wanted.h
serve_client.o: clock.h datafile.h log.h metafile.h serve_client.h sha256.h wire.h
sha256.o: sha256.h
shares.o: sha256.h shares.h wire.h
swarm.o: clock.h datafile.h fetch.h log.h metafile.h peer_fetch.h sha256.h shares.h swarm.h wanted.h wire.h
tracker.o: args.h clock.h csapp.h log.h metafile.h sha256.h wire.h
tracker_query.o: process.h sha256.h tracker_query.h wire.h
transfer.o: transfer.h
wanted.o: wanted.h
window.o: window.h
wire.o: clock.h csapp.h log.h sha256.h wire.h

demo: all
	sh tests/demo.sh

test: all units
	$(PYTHON) tests/run.py

soak: all units bench/load
	$(PYTHON) tests/soak.py
	CASCADE_KILLS=200 $(PYTHON) tests/run.py -k Kill

# As in make bench BENCH="--size 64M --only rsync"; bench/bench.py --help tells the options.
bench: all bench/load bench/fetch_floor
	$(PYTHON) bench/bench.py $(BENCH)

bench-serve: bench/load
	$(PYTHON) bench/serve.py

bench/fetch_floor: bench/loopback.h

bench/load bench/fetch_floor: %: %.c $(COMMON)
	$(CC) $(FLAGS) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(COMMON) $(LDLIBS)

# The floor is linked as the programs are: it should need no more pages than they.
bench/floor: bench/floor.c bench/loopback.h
	$(CC) $(FLAGS) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $(FEW_PAGES) -o $@ $< $(LDLIBS)

install: all
	mkdir -p $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -f $(PROGRAMS) $(UNITS) *.o tests/unit/rooms.a bench/load bench/floor bench/fetch_floor

.PHONY: all units demo test soak bench bench-serve install clean
