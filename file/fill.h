/* fill.h - what needn't be fetched: chunks of zeros, and what older files already have. */
#ifndef FILL_H
#define FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/datafile.h"

/* A file that chunks are copied from, and that is never changed. */
struct older {
	const char *path;	/* the caller's */
	int fd;			/* open for reading only */
};

/* Opens the file at path, which is kept and not copied: a regular file or a block device.
 * Returns 0; or -1 after a message. */
int older_open(struct older *o, const char *path);

/* Whether the file is one of these data files. Says so. All are open. */
bool older_overlap(const struct older *o, const struct datafile files[], size_t count);

/* Adds the missing chunks that are nothing but zeros to d->held: those in a hole of the
 * file as they are, others after zeros were written. Comes after datafile_begin_write.
 * Returns 0; or an errno after a message: no more can be written. */
int fill_zeros(struct datafile *d);

/* Copies the missing chunks from an older file that has them at the same place, checks
 * them in the data file, and adds them to d->held. Comes after datafile_begin_write.
 * workers and progress are as for datafile_check.
 * Returns 0, though nothing could be copied; or an errno after a message: no more can be
 * written, or the metafile can't be read any more. */
int fill_from(struct datafile *d, const struct older *o, unsigned workers,
	      void (*progress)(void *arg, uint64_t bytes));

#endif
