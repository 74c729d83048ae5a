/* datafile.h - a data file and what is known of it: the rules that keep a
 * user's file from harm, the lock against a second writer, and what becomes of a
 * file that somebody else writes to. */
#ifndef DATAFILE_H
#define DATAFILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "file/metafile.h"

struct datafile {
	struct metafile meta;
	const char *path;	/* of the data file */
	struct held *held;	/* in shared memory */
	atomic_bool *lost;	/* in shared memory: it is neither fetched nor served any more */
	atomic_bool *missed;	/* in shared memory: it was said that it isn't found at path */
	atomic_bool *damaged;	/* in shared memory: it was said that a chunk is */
	atomic_bool *writer_ended;	/* in shared memory: whoever of ours might write to it */
	int fd;			/* the data file; what is served is opened anew */
	bool writable;		/* fd is open for writing too */
	bool written;		/* by this process */
	bool empty;		/* held no byte when it was opened: there is nothing to check */
	bool too_long;		/* longer than it should be, when it was opened */
	bool marked;		/* it ends in the mark of a file that may hold bytes of ours alone */
	uint64_t checked;	/* so many chunks, from the first on, have been looked at */
	struct stamp stamp;	/* when it was opened */
	dev_t device;		/* together they tell whether path still is this file */
	ino_t inode;
};

/* Opens the metafile and its data file, which is made if it isn't there. path
 * is kept; NULL stands for the metafile's path without its suffix.
 * Refused is one that another process is downloading, and what is no regular file.
 * Returns 0; or -1 after a message. */
int datafile_open(struct datafile *d, const char *metafile_path, const char *path);

/* Closes the data file, for good: what is on the disk then is what others find.
 * Returns 0; or -1 after a message: bytes that were written may be lost. From now on
 * whoever writes to it is noticed. */
int datafile_close(struct datafile *d);

/* Whether one file was named for two purposes: as two data files, or as a data
 * file and a metafile. Says so. */
bool datafile_overlap(const struct datafile files[], size_t count);

/* Checks what the data file holds, from d->checked on, as check_data_file does, with
 * that many worker processes. Returns 0; or -1 after a message. */
int datafile_check(struct datafile *d, unsigned workers, bool until_proven,
		   void (*progress)(void *arg, uint64_t bytes));

/* Whether the data file may be overwritten: a file of ours, or nobody's. That it is
 * if it is empty; or ends in our mark; or is nothing but zeros; or if a chunk in it
 * matches that is proof (check.h), or all do, and it isn't longer than it should be. Any other may
 * be if force is true. Says what is refused, or what is overwritten by force. What is
 * checked for it is not checked again: parameters as for datafile_check.
 * Returns 0; or -1 after a message. */
int datafile_claim(struct datafile *d, bool force, unsigned workers,
		   void (*progress)(void *arg, uint64_t bytes));

/* To be called when all of it is checked. Returns 0; or -1 after a message: somebody
 * has written to it meanwhile, and so nothing is known. */
int datafile_end_check(struct datafile *d);

/* Makes the data file ready to be written: locks out other writers, and gives
 * it its final length, without taking the space. Returns 0; or -1 after a
 * message. */
int datafile_begin_write(struct datafile *d);

/* Before bytes are written: marks a file that holds nothing yet that proves it to be
 * ours. Returns 0, or an errno. */
int datafile_mark(struct datafile *d);

/* After chunks were verified: takes the mark away, if there is one, and it is needed
 * no more. Returns 0; or -1 after a message. */
int datafile_unmark(struct datafile *d, bool complete);

/* Whether the data file that is being written still has its length, and a name:
 * somebody else may have cut or removed it. Says so. */
bool datafile_is_intact(const struct datafile *d);

/* The process that checks the data file and writes to it has ended, in whatever way. If
 * that was before datafile_close, nothing tells how the file has to look from now on. */
void datafile_writer_ended(struct datafile *d);

/* How a data file looks that was opened anew, to be served. */
enum datafile_look {
	DATAFILE_SAME,		/* as it did when it was verified */
	DATAFILE_TOUCHED,	/* its bytes may be others: its mode, links or times were changed, or
				 * it isn't known how they should be */
	DATAFILE_CHANGED,	/* somebody has written to it, or to the metafile */
	DATAFILE_OTHER		/* it is another file */
};

/* Looks at the data file that was opened as fd. While a fetcher of ours writes to it,
 * no change of it is noticed. What was changed must be lost: see datafile_lose. */
enum datafile_look datafile_look(struct datafile *d, int fd);

/* The file is not to be used any more, since it was changed, or if d->meta.error is
 * set the metafile was, or can't be read. Says so, unless a process has said it. */
void datafile_lose(struct datafile *d);

/* The data file isn't found at its path: another one is, or that can't be opened for this
 * errno, which is else 0. It may come back. Says so, unless a process has said it. */
void datafile_miss(struct datafile *d, int error);

/* A chunk that was held has its hash no more. Says so, unless a process has said it of
 * any: who asks for it again and again must not fill a log. */
void datafile_damaged(struct datafile *d, uint64_t chunk);

/* How many bytes the chunks have that are held, given how many those are; and
 * those that are not. */
uint64_t datafile_held_bytes(const struct datafile *d, uint64_t held_chunks);
uint64_t datafile_missing_bytes(const struct datafile *d);

#endif
