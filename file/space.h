/* space.h - whether a data file fits onto its disk. */
#ifndef SPACE_H
#define SPACE_H

#include <stdint.h>

#include "file/datafile.h"

/* How many bytes the disk still has to give for what is missing: blocks that the file has
 * already count, and so do zeros that are held as holes. 0 for what is no regular file. */
uint64_t space_needed(const struct datafile *d);

/* How many bytes this process may still take on the disk; UINT64_MAX if that can't be told. */
uint64_t space_free(const struct datafile *d);

#endif
