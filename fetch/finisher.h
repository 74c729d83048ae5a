/* finisher.h - what takes long when all of a file is there: with --verify-whole it is hashed
 * as a whole, with --fsync it is put onto the disk.
 *
 *   fetcher ── finisher: does that for one file, and exits
 *
 * Meanwhile the fetcher goes on with its other files. */
#ifndef FINISHER_H
#define FINISHER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "file/datafile.h"

struct finisher {
	struct datafile *file;
	bool whole;		/* it is hashed, not only put onto the disk */
	pid_t pid;
	int from;		/* a pipe, to poll; -1: it has said all */
	uint64_t hashed;	/* bytes, so far; all if it isn't */
	int status;		/* how it ended, as an exit status */
};

/* Begins with that file; hashes it if `whole`. Where nothing is to be done, or no process can be
 * started for it, all is done at once, and f->from is -1. finisher_end ends the process, if it
 * lives. */
void finisher_begin(struct finisher *f, struct datafile *d, bool whole);
void finisher_end(struct finisher *f);

/* Takes what it has said, when poll tells of it; if it has died, does its work. When that was all,
 * f->from is -1, f->status is EXIT_DONE or another one, after a message, and datafile_close knows
 * what became of --fsync. */
void finisher_read(struct finisher *f);

#endif
