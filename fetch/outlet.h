/* outlet.h - a file that goes to standard output while it arrives (cascade -o -).
 *
 *   fetcher ── writer: writes what is held to standard output, in the file's order
 *
 * The data file is a temporary one, without a name, and has room for a window: the chunks from
 * the next one to be written on. No other is asked for, so whoever reads slowly is sent slowly
 * to. To the rest of the fetcher it is a data file like any other.
 *
 * The writer finds in the map of held chunks what it may write: so no byte is written before
 * its chunk was verified. It is a process of its own, since it waits for the reader. It tells the
 * fetcher how far it is, and the window moves on. */
#ifndef OUTLET_H
#define OUTLET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fetch/choice.h"
#include "file/datafile.h"

struct outlet {
	const struct datafile *file;
	struct choice *choice;
	pid_t writer;		/* 0: there is none */
	int to, from;		/* pipes to the writer, and from it; from is -1 when it has said all */
	uint64_t written;	/* chunks, from the first one on */
	uint64_t ready;		/* chunks that are held, from the first one on, as far as was looked */
	uint64_t end;		/* of the window */
	bool done;		/* all is written, and standard output closed */
	int error;		/* the errno of why standard output takes no more; or 0 */
};

/* Opens the metafile, and a temporary data file in TMPDIR, or else in /tmp. Result as of
 * datafile_open. */
int outlet_open(struct datafile *d, const char *metafile_path);

/* Begins to write the file, of which only chunks of zeros are held, and takes what lies behind the
 * window off the choice. A file that is not temporary is not written: it is done at once. Returns
 * 0; or -1 after a message. outlet_end ends the writer. */
int outlet_begin(struct outlet *o, struct datafile *d, struct choice *c);
void outlet_end(struct outlet *o);

/* Tells the writer that more chunks are held than before. Returns 0; or -1 after a message. */
int outlet_wake(const struct outlet *o);

/* Whether all that may be asked for is held, so that nothing comes until the reader has taken some. */
bool outlet_waits(struct outlet *o);

/* Takes what the writer has said, when poll tells of it. The window moves on, and what comes into
 * it is wanted. Returns 0; or -1 after a message: no more can be written. */
int outlet_read(struct outlet *o);

#endif
