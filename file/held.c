/* held.c - the map of held chunks.
 *
 * The memory is mapped twice: once for reading and writing, once for reading only. A
 * process that only serves drops the writable mapping, and the kernel gives it no way
 * to get it back. That buys safety: a serving child that a client has taken over can't
 * make other children serve unverified bytes. It costs one mapping more until then, and
 * no time. Without it (PORTABLE, other systems) there is one mapping, and all works the
 * same, without that safety. */
#define _GNU_SOURCE	/* memfd_create */
#include "file/held.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

#define ALIGNMENT _Alignof(max_align_t)

/* Bytes of the memory that the map is in; 0 if no memory is that large. */
static size_t memory_size(uint64_t chunks, size_t owner_size)
{
	uint64_t bits = chunks / 8 + 1;

	if (bits >= SIZE_MAX - sizeof(struct held) - owner_size)
		return 0;
	return owner_size + sizeof(struct held) + (size_t)bits;
}

static size_t size_of(const struct held *held)
{
	return memory_size(held->chunks, held->owner_size);
}

/* ---- memory that is mapped twice ------------------------------------------------ */

/* Maps new shared memory of that size, for reading and writing, and in *read_only the
 * same memory once more, for reading only: NULL if the system can't do that.
 * Returns NULL with errno if there is no memory. */
#if defined(MFD_ALLOW_SEALING) && defined(F_ADD_SEALS) && !defined(PORTABLE)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u		/* some systems insist on it, older ones don't know it */
#endif

static void *map_twice(size_t size, void **read_only)
{
	void *writable = MAP_FAILED, *second = MAP_FAILED;
	int fd = memfd_create("held", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	*read_only = NULL;
	if (fd < 0)
		fd = memfd_create("held", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return memory_shared(size);
	if (ftruncate(fd, (off_t)size) == 0)
		writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	/* From the seal on, no new mapping can be made writable. */
	if (writable != MAP_FAILED && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0)
		second = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (second == MAP_FAILED) {
		if (writable != MAP_FAILED)
			munmap(writable, size);
		return memory_shared(size);
	}
	*read_only = second;
	return writable;
}

#else

static void *map_twice(size_t size, void **read_only)
{
	*read_only = NULL;
	return memory_shared(size);
}

#endif

/* ---- the map -------------------------------------------------------------------- */

struct held *held_new(uint64_t chunks, size_t owner_size)
{
	owner_size = (owner_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	void *read_only, *memory = map_twice(memory_size(chunks, owner_size), &read_only);

	if (memory == NULL)
		return NULL;
	struct held *held = (struct held *)((char *)memory + owner_size);
	held->chunks = chunks;	/* all else is zero already */
	held->owner_size = owner_size;
	if (read_only != NULL)
		held->read_only = (struct held *)((char *)read_only + owner_size);
	return held;
}

void *held_owner_memory(struct held *held)
{
	return (char *)held - held->owner_size;
}

void held_free(struct held *held)
{
	struct held *read_only = held->read_only;
	size_t size = size_of(held), owner_size = held->owner_size;

	munmap((char *)held - owner_size, size);
	if (read_only != NULL && read_only != held)
		munmap((char *)read_only - owner_size, size);
}

struct held *held_read_only(struct held *held)
{
	struct held *read_only = held->read_only;

	if (read_only == NULL) {
		mprotect(held_owner_memory(held), size_of(held), PROT_READ);	/* if it fails, no harm */
		return held;
	}
	if (read_only != held)
		munmap(held_owner_memory(held), size_of(held));
	return read_only;
}

/* Release and acquire: a process that sees the bit also sees the chunk's bytes. */

bool held_has(const struct held *held, uint64_t chunk)
{
	return atomic_load_explicit(&held->bits[chunk / 8], memory_order_acquire) >> chunk % 8 & 1;
}

bool held_has_all(const struct held *held, uint64_t first, uint64_t end)
{
	while (first < end)
		if (first % 8 == 0 && end - first >= 8 &&
		    atomic_load_explicit(&held->bits[first / 8], memory_order_acquire) == UINT8_MAX)
			first += 8;
		else if (held_has(held, first))
			first++;
		else
			return false;
	return true;
}

void held_add(struct held *held, uint64_t chunk)
{
	atomic_fetch_or_explicit(&held->bits[chunk / 8], (unsigned char)(1u << chunk % 8),
				 memory_order_release);
	if (!atomic_load_explicit(&held->some, memory_order_relaxed))
		atomic_store(&held->some, true);
}

uint64_t held_count(const struct held *held)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < held->chunks / 8 + 1; i++)
		for (unsigned char bits = held->bits[i]; bits != 0; bits &= (unsigned char)(bits - 1))
			count++;
	return count;
}
