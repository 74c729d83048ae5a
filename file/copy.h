/* copy.h - bytes from one file to another. */
#ifndef COPY_H
#define COPY_H

#include <stdint.h>

/* Copies size bytes from the file `from`, at that offset, to the file `to`. Where the file
 * system can, both share what they have on the disk. Sets *read_error to 0; or to the
 * errno of a failed read: EIO if the file ends before.
 * Returns 0, also after a failed read; or the errno of a failed write. */
int copy_between(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size, int *read_error);

#endif
