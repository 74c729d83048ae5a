/* datafile.h - a data file, and what is known of it: the rules that keep a user's file
 * from harm, the lock against a second writer, and what becomes of a file that somebody
 * else writes to. */
#ifndef DATAFILE_H
#define DATAFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "file/held.h"
#include "file/metafile.h"
#include "file/stamp.h"

/* What the fetcher's side tells the other processes of a data file. */
struct datafile_shared {
	atomic_bool checked;	/* what the file held at the start has been looked at */
	atomic_uint phase;	/* odd: no process of ours writes to the file; even: one does */
	struct stamp stamp;	/* in an odd phase, how the file looks */
};

struct datafile {
	struct metafile meta;
	const char *path;	/* of the data file; of a temporary one, what messages call it, */
	const char *place;	/* and where its bytes are; else the same as path */
	bool temporary;		/* it has no name, and nothing is kept */
	struct held *held;	/* in shared memory, */
	struct datafile_shared *shared;	/* and this beside it */
	/* In shared memory that all processes may write: */
	atomic_bool *lost;	/* it is neither fetched nor served any more */
	atomic_bool *missed;	/* it was said that it isn't found at its path */
	atomic_bool *damaged;	/* it was said that a chunk is */
	atomic_bool *writer_ended;	/* the process of ours that might write to it */
	int fd;			/* the data file; what is served is opened anew */
	int not_writable;	/* why fd is open only for reading (an errno); 0: for writing too */
	bool force;		/* the caller's wish: a block device may be written to */
	bool is_device;		/* a block device: it has its length, and nothing is known of its zeros */
	bool sync;		/* the caller's wish: what is called complete is on the disk */
	bool written;		/* by this process */
	bool was_synced;	/* by another process, and */
	int sync_error;		/* what came of that (an errno), or 0 */
	bool empty;		/* held no byte when it was opened: there is nothing to check */
	bool too_long;		/* longer than it should be, when it was opened */
	bool marked;		/* it ends in the mark of a file that may hold bytes of ours alone */
	uint64_t checked;	/* chunks, from the first on, that this process has looked at */
	struct stamp stamp;	/* when it was opened */
	dev_t device;		/* together they tell whether path still is this file */
	ino_t inode;
};

/* ---- opening ---- */

/* Opens the metafile and its data file, which is made if it isn't there. *d is all zero.
 * The paths are kept, not copied; path may be NULL for the metafile's path without its
 * suffix. Refused are a file that another process is downloading, and what is no regular
 * file and no block device. A device is opened for writing only with d->force, and only if nobody
 * has mounted it or uses it. Returns 0; or -1 after a message: then the program is to end, and what was
 * opened is not closed. */
int datafile_open(struct datafile *d, const char *metafile_path, const char *path);

/* The same for a data file without a name, open as fd for reading and writing, and empty: nobody
 * else has it, and nothing of it is kept. name and place are for messages, and kept. The caller
 * may set d->meta.ring then. */
int datafile_open_temporary(struct datafile *d, const char *metafile_path, int fd, const char *name,
			    const char *place);

/* Whether one of these failed because the metafile is bad. */
bool datafile_metafile_is_bad(const struct datafile *d);

/* Whether one file was named for two purposes: as two data files, or as a data file and
 * a metafile. Says so. The files are open. */
bool datafile_overlap(const struct datafile files[], size_t count);

/* ---- checking what it holds ---- */

/* Checks the chunks that the data file holds, from d->checked on, with so many worker
 * processes (1 to SCAN_WORKERS_MAX), and adds those that match to d->held. With
 * until_proven it ends at the first match that is proof (check.h). Calls
 * progress(NULL, bytes) with the bytes checked so far every now and then. Sets
 * d->checked. Returns 0; or -1 after a message. */
int datafile_check(struct datafile *d, unsigned workers, bool until_proven,
		   void (*progress)(void *arg, uint64_t bytes));

/* Whether the data file may be overwritten, because it is ours or nobody's: it is empty,
 * or ends in our mark, or is nothing but zeros; or it isn't longer than it should be, and a
 * chunk in it matches that is proof (check.h), or all chunks match. Any other may be if force is true. Says
 * what is refused, or what is overwritten by force. What is checked for it needs no
 * second check. workers and progress are as for datafile_check.
 * Returns 0; or -1 after a message. */
int datafile_claim(struct datafile *d, bool force, unsigned workers,
		   void (*progress)(void *arg, uint64_t bytes));

/* To be called when all chunks are checked. Returns 0; or -1 after a message: somebody has
 * written to the file meanwhile, so nothing is known of it, and it is lost. */
int datafile_end_check(struct datafile *d);

/* Tells all processes that what the data file held at the start has been looked at. */
void datafile_set_checked(struct datafile *d);

/* Whether datafile_set_checked was called, by any process. */
bool datafile_is_checked(const struct datafile *d);

/* ---- writing ---- */

/* Makes the data file ready to be written: locks out other writers, and gives it its
 * final length, without taking the space. From now on changes by others are not noticed.
 * Returns 0; or -1 after a message. To be called once. */
int datafile_begin_write(struct datafile *d);

/* To be called before bytes are written: marks a file that holds nothing yet that proves
 * it to be ours. With d->sync the mark is on the disk before they can be. Returns 0, or an errno. */
int datafile_mark(struct datafile *d);

/* To be called after chunks were verified: removes the mark, if there is one, unless it is
 * still needed. complete: all chunks are held. Returns 0; or -1 after a message. */
int datafile_unmark(struct datafile *d, bool complete);

/* Whether the data file had no byte at that offset, or after it, when it was opened: what
 * nobody has written there since is a hole. */
bool datafile_is_new_from(const struct datafile *d, uint64_t offset);

/* Whether the data file that is being written still has its length, and a name: somebody
 * else may have cut or removed it. Says so. */
bool datafile_is_intact(const struct datafile *d);

/* With d->sync, and for a device that was written to, waits until its bytes and its name are on
 * the disk; unless that was done. Returns 0; or -1 with errno: some may be lost. */
int datafile_sync(const struct datafile *d);

/* Whether datafile_sync has something to do. */
bool datafile_is_to_sync(const struct datafile *d);

/* Another process has called datafile_sync, with this errno, or 0. */
void datafile_set_synced(struct datafile *d, int error);

/* Closes d->fd, after datafile_sync: what the file holds then is what others find. From now on
 * changes by others are noticed. Returns 0; or -1 after a message: bytes that were written may
 * be lost, and the file is. */
int datafile_close(struct datafile *d);

/* ---- serving ---- */

/* Gives up the right to say what is held and who writes, for this process and those that
 * it forks later: see held_read_only. */
void datafile_map_read_only(struct datafile *d);

/* Tells all processes that the process that checks the data file and writes to it has ended,
 * in whatever way. If that was before datafile_close, nobody knows how the file should look
 * from now on. */
void datafile_writer_ended(struct datafile *d);

/* How a data file looks that was opened anew, to be served. */
enum datafile_look {
	DATAFILE_SAME,		/* as it did when it was verified */
	DATAFILE_TOUCHED,	/* its bytes may be others: its mode, links or times were changed,
				 * or nobody knows how it should look */
	DATAFILE_CHANGED,	/* somebody has written to it, or to the metafile */
	DATAFILE_OTHER		/* it is another file */
};

/* Looks at the data file that was opened as fd. While a fetcher of ours writes to it, no
 * change of it is noticed. After DATAFILE_CHANGED call datafile_give_up. */
enum datafile_look datafile_look(struct datafile *d, int fd);

/* Tells all processes not to use the file any more: it was changed, or, if d->meta.error
 * is set, the metafile was or can't be read. Says so, unless a process has said it. */
void datafile_give_up(struct datafile *d);

/* Says that the data file isn't found at its path, unless a process has said it: another file
 * is there (error 0), or it can't be opened (error: the errno). It may come back. */
void datafile_say_missing(struct datafile *d, int error);

/* A chunk that was held doesn't match its hash any more. Says so, unless a process has
 * said it of any chunk: clients that ask for it again and again must not fill a log. */
void datafile_say_damaged(struct datafile *d, uint64_t chunk);

/* ---- how much there is ---- */

/* Says that no more can be written to it, and what is kept. */
void datafile_say_unwritable(const struct datafile *d, int error);

/* How many bytes the held chunks have, given how many chunks those are. */
uint64_t datafile_held_bytes(const struct datafile *d, uint64_t held_chunks);

/* How many bytes the chunks have that are not held. */
uint64_t datafile_missing_bytes(const struct datafile *d);

#endif
