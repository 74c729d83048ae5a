/* memory.c - memory that forked processes share, and memory that they don't get. */
#define _DEFAULT_SOURCE 1	/* MAP_ANONYMOUS, before POSIX.1-2024; madvise */
#include "base/memory.h"

#include <sys/mman.h>

static void *map(size_t size, int sharing)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

void *memory_shared(size_t size)
{
	return map(size, MAP_SHARED);
}

void *memory_unforked(size_t size)
{
	void *memory = map(size, MAP_PRIVATE);

#if defined(MADV_DONTFORK) && !defined(PORTABLE)
	if (memory != NULL)
		madvise(memory, size, MADV_DONTFORK);	/* only for speed */
#endif
	return memory;
}
