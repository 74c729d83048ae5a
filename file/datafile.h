/* datafile.h - a data file and what is known of it: the rules that keep a
 * user's file from harm, and the lock against a second writer. */
#ifndef DATAFILE_H
#define DATAFILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "file/metafile.h"

struct datafile {
	struct metafile meta;
	const char *path;	/* of the data file */
	struct held *held;	/* in shared memory */
	int fd;			/* the data file; what is served is opened anew */
	bool writable;		/* fd is open for writing too */
	off_t size;		/* when it was opened */
	bool empty;		/* held no byte when it was opened: there is nothing to check */
	bool too_long;		/* longer than it should be: use was forced */
	dev_t device;		/* together they tell whether path still is this file */
	ino_t inode;
};

/* Opens the metafile and its data file, which is made if it isn't there. path
 * is kept; NULL stands for the metafile's path without its suffix.
 * Refused is, unless force is true, a data file that is longer than the
 * metafile says; and one that is shorter, not empty, and holds no chunk that
 * matches: it must be something else. Refused always is one that another
 * process is downloading.
 * Returns 0; or -1 after a message. */
int datafile_open(struct datafile *d, const char *metafile_path, const char *path, bool force);

/* Whether one file was named for two purposes: as two data files, or as a data
 * file and a metafile. Says so. */
bool datafile_overlap(const struct datafile files[], size_t count);

/* Makes the data file ready to be written: locks out other writers, and gives
 * it its final length, without taking the space. Returns 0; or -1 after a
 * message. */
int datafile_begin_write(struct datafile *d);

/* Whether the data file that is being written still has its length, and a name:
 * somebody else may have cut or removed it. Says so. */
bool datafile_is_intact(const struct datafile *d);

/* How many bytes the chunks have that are held, given how many those are; and
 * those that are not. */
uint64_t datafile_held_bytes(const struct datafile *d, uint64_t held_chunks);
uint64_t datafile_missing_bytes(const struct datafile *d);

#endif
