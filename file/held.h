/* held.h - the map of held chunks: those whose bytes are in the data file and have the
 * hash that the metafile gives them.
 *
 * The map lies in memory that is shared with the processes forked later. Chunks are added
 * by those that check them: at the start this process and its workers, then the fetcher
 * and its checkers. The serving parent and its children look them up, and can't add any;
 * nobody ever removes one. */
#ifndef HELD_H
#define HELD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct held {
	struct held *read_only;		/* the second mapping of this memory; NULL if there is none */
	size_t owner_size;		/* bytes before this struct that are the owner's */
	atomic_bool some;		/* at least one chunk is held */
	atomic_bool proven;		/* at least one held chunk is proof of whose the file is (check.h) */
	uint64_t chunks;		/* in the data file */
	_Atomic unsigned char bits[];	/* chunk i is bit i % 8 of byte i / 8 */
};

/* Makes a map of that many chunks, none of them held. In the same memory, and shared
 * in the same way, are owner_size bytes for the caller, all zero: held_owner_memory finds them.
 * (A mapping of their own would make every fork slower.)
 * Returns the map, for held_free; NULL with errno if there is no memory. */
struct held *held_new(uint64_t chunks, size_t owner_size);

/* Gives the memory back, in this process only. */
void held_free(struct held *held);

/* The owner's bytes, aligned for any type. */
void *held_owner_memory(struct held *held);

/* Makes the map read-only for this process and those that it forks later. They still
 * see what other processes add. On Linux this is for good: a child that was taken over
 * through a bug can't make a chunk count as held. With PORTABLE and on other systems
 * it only protects against mistakes: mprotect(2) would undo it.
 * Returns the map to use from now on, in place of held. */
struct held *held_read_only(struct held *held);

/* Whether the chunk is held. A process that sees that also sees its bytes in the file.
 * chunk < held->chunks. */
bool held_has(const struct held *held, uint64_t chunk);

/* Whether all chunks from first on, and before end, are held. end <= held->chunks. */
bool held_has_all(const struct held *held, uint64_t first, uint64_t end);

/* Adds the chunk. Its bytes are in the file, and were verified. chunk < held->chunks. */
void held_add(struct held *held, uint64_t chunk);

/* How many chunks are held. */
uint64_t held_count(const struct held *held);

#endif
