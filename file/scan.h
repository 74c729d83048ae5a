/* scan.h - checking what a data file holds at the start, with several processes. */
#ifndef SCAN_H
#define SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "file/held.h"
#include "file/metafile.h"

#define SCAN_WORKERS_MAX 64

/* How a data file is scanned. */
struct scan_plan {
	const char *path;	/* of the data file, for messages */
	unsigned workers;	/* processes, from 1 to SCAN_WORKERS_MAX */
	bool until_proven;	/* no further than to the first match that is proof (check.h) */
	/* Is called with the bytes checked so far every now and then. */
	void (*progress)(void *arg, uint64_t bytes);
	void *arg;
};

/* Checks the chunks of the data file, which fd can read, from *next on, and adds those
 * that match to held. Sets *next to the first chunk that is still to be checked: to
 * m->chunks, unless the plan says until_proven. Chunks that can't be read are not held,
 * with a message. Where processes can't be had, the calling one does their work.
 * Returns 0; or -1 with errno if the data file can't be looked at, or if m->error is set:
 * then the metafile can't be read any more. */
int scan_file(struct metafile *m, int fd, struct held *held, const struct scan_plan *plan,
	      uint64_t *next);

#endif
