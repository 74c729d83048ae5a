/* check.h - do the chunks in a data file have the hashes of its metafile?
 *
 * What the file holds at the start is checked by several processes at once; what
 * arrives later by a few, the checkers, beside the fetcher. All look at the chunks
 * in the file, so that what is called held is what is there. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <sys/types.h>

#include "file/held.h"
#include "file/metafile.h"

/* Neighbouring chunks, and what checking them gave. */
struct run {
	uint64_t first, count;
	uint32_t peer;		/* who sent them: the fetcher's number, only passed on */
	int32_t error;		/* the errno of a failed read of the data file, or 0 */
	int32_t metafile_error;	/* that of the metafile, as metafile_chunk_hash has it: nobody's chunk is wrong */
	uint64_t bad;		/* how many don't match: all that were not added to held */
};

/* Checks the chunks of the runs in the data file, which fd can read, and adds
 * those that match to held. Sets bad and the errors of each run. */
void check_runs(struct metafile *m, int fd, struct run runs[], size_t count, struct held *held);

#define CHECK_WORKERS_MAX 64

/* How a whole file is checked. */
struct check_plan {
	const char *path;	/* of the data file, for messages */
	unsigned workers;	/* processes, from 1 to CHECK_WORKERS_MAX */
	bool until_proven;	/* no further than to the first match that is not all zeros */
	/* Is called with the bytes checked so far every now and then. */
	void (*progress)(void *arg, uint64_t bytes);
	void *arg;
};

/* Checks the data file's chunks from *next on, and adds what matches to held. Sets
 * *next to the first chunk that is still to be checked: to m->chunks, unless the plan
 * says until_proven. What lies in the file's holes costs nothing. Chunks that can't
 * be read are not held, with a message. Where processes can't be had, the calling one
 * does their work. Returns 0; or -1 with errno: m->error, if the metafile can't be
 * read any more, or else the data file couldn't be looked at. */
int check_data_file(struct metafile *m, int fd, struct held *held, const struct check_plan *plan,
		    uint64_t *next);

/* Whether a file of that many bytes is nothing but zeros and holes. It is read up to
 * the first other byte; one that can't be read is not. */
bool check_is_blank(int fd, uint64_t size);

/* Whether the whole data file has the metafile's hash of the whole: 1 or 0, or
 * -1 with errno if it can't be read (EIO: it is too short). Calls progress with
 * the bytes read so far every now and then. */
int check_whole(const struct metafile *m, int fd, void (*progress)(void *arg, uint64_t bytes), void *arg);

/* A process that checks what arrives. */
struct checker {
	pid_t pid;
	int to, from;		/* pipes of struct run */
	unsigned waiting;	/* runs sent and not yet returned */
};

#define CHECKER_WAITING_MAX 80	/* so many fit into any pipe: 4096 bytes */

/* Starts one of that many checkers. fd and held are as for check_runs. Returns 0, or
 * -1 with errno. checker_stop ends and reaps it. */
int checker_start(struct checker *c, struct metafile *m, int fd, struct held *held, unsigned checkers);
void checker_stop(struct checker *c);

/* Sends a run to be checked; never blocks while waiting < CHECKER_WAITING_MAX.
 * -1 with errno if the checker is gone. */
int checker_send(struct checker *c, const struct run *run);

/* Takes results of runs, as many as there are; blocks if there are none (poll
 * the pipe `from` before). Returns how many, or -1 if the checker is gone. */
ssize_t checker_receive(struct checker *c, struct run runs[CHECKER_WAITING_MAX]);

#endif
