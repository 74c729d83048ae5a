/* whole.h - the hash of the whole data file (--verify-whole). */
#ifndef WHOLE_H
#define WHOLE_H

#include <stdint.h>

#include "file/metafile.h"

/* Whether the data file, which fd can read, has the metafile's hash of the whole. Calls
 * progress(arg, bytes) with the bytes read so far every now and then.
 * Returns 1 or 0; or -1 with errno if the file can't be read: EIO if it is too short. */
int whole_check(const struct metafile *m, int fd, void (*progress)(void *arg, uint64_t bytes),
		       void *arg);

#endif
