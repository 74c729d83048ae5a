/* memory.h - memory by its relation to the processes that are forked later. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

/* Memory, zero at first, that is shared with all processes forked later; munmap(2)
 * frees it. NULL with errno if there is none. */
void *memory_shared(size_t size);

/* The same for memory of this process alone. Processes that are forked later don't
 * get it where the system can do that, so that a fork is cheaper for whoever writes
 * to it often: no page of it is copied then. They must not touch it. */
void *memory_unforked(size_t size);

#endif
