/* memory.h - memory that forked processes share, and memory that they don't get. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

/* Memory, zero at first, that this process shares with all processes that it forks
 * later. munmap(2) frees it. NULL with errno if there is none. */
void *memory_shared(size_t size);

/* The same, but for this process alone. Processes forked later must not touch it: where
 * the system can do that, they don't have it. That makes forks cheaper for a process
 * that writes to it often, since none of its pages are copied. */
void *memory_unforked(size_t size);

#endif
