/* check.h - do chunks in a data file have the hashes of its metafile?
 *
 * Chunks are always looked at in the file, never in memory of the program: what is
 * called held is what is there. */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "file/held.h"
#include "file/metafile.h"

/* Neighbouring chunks, and what checking them gave. */
struct run {
	uint64_t first, count;	/* chunks */
	uint32_t file;		/* that they are of, and */
	uint32_t peer;		/* who sent them: the fetcher's numbers, for checker.c and only passed on */
	int32_t error;		/* the errno of a failed read of the data file, or 0 */
	int32_t metafile_error;	/* that of metafile_chunk_hash, or 0: then no chunk is known to be wrong */
	uint64_t bad;		/* chunks that were not added to held: all that don't match */
};

/* Checks the chunks of `count` runs in the data file, which fd can read, and adds those
 * that match to held. One that has 32 bytes or more, and not the same in all places, is
 * proof of whose the file is: it sets held->proven. Sets bad and the errors of each run.
 * The runs' chunks exist in m. */
void check_runs(struct metafile *m, int fd, struct run runs[], size_t count, struct held *held);

#endif
