/* metafile.h - the .cascade file: what is known of a data file before a byte of
 * it has come. PROTOCOL.md, section 1. */
#ifndef METAFILE_H
#define METAFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/stamp.h"
#include "sha256.h"

#define METAFILE_SUFFIX ".cascade"
#define METAFILE_HEADER_SIZE 64			/* bytes before the first chunk hash */
#define METAFILE_LENGTH_MAX INT64_MAX		/* a data file's length fits into off_t */
#define METAFILE_HASHES_AHEAD 128		/* chunk hashes read at a time */

/* A metafile that was opened and checked. All sizes are in bytes. */
struct metafile {
	const char *path;			/* the caller's */
	int fd;
	struct stamp stamp;			/* how it looked when its bytes were hashed */
	int error;				/* the errno of the first failure to read a chunk hash, or 0 */
	uint64_t length;			/* of the data file */
	uint64_t chunk_size;			/* of every chunk but the last */
	uint64_t chunks;			/* how many */
	uint8_t data_hash[SHA256_HASH_SIZE];	/* of the whole data file */
	uint8_t cascade_hash[SHA256_HASH_SIZE];	/* of the metafile: its name on the network */
	/* The chunk hashes stay in the file, which may be larger than memory;
	 * these are the ones that were last asked for. */
	uint64_t ahead_first, ahead_count;
	uint8_t ahead[METAFILE_HASHES_AHEAD][SHA256_HASH_SIZE];
};

/* Opens the metafile at path (kept, not copied), checks all that can be
 * checked, and computes its cascade hash.
 * Returns 0; or -1, and *why says what is wrong, in static memory.
 * metafile_close gives back what a 0 has opened. */
int metafile_open(struct metafile *m, const char *path, const char **why);
void metafile_close(struct metafile *m);

/* The data file's path: the metafile's without its suffix. For the caller to
 * free; NULL if path doesn't end in the suffix, or if memory ran out. */
char *metafile_data_path(const char *path);

/* How many chunks a data file of that length has. chunk_size is not 0. */
uint64_t metafile_chunk_count(uint64_t length, uint64_t chunk_size);

/* Where in the data file the chunk begins, and its length. chunk < m->chunks. */
uint64_t metafile_chunk_offset(const struct metafile *m, uint64_t chunk);
uint64_t metafile_chunk_length(const struct metafile *m, uint64_t chunk);

/* The hash that the chunk must have, in m's memory until the next call.
 * NULL with errno if it can't be read, now or at some time before: ESTALE if
 * somebody has written to the metafile. chunk < m->chunks. */
const uint8_t *metafile_chunk_hash(struct metafile *m, uint64_t chunk);

/* Whether the file that was opened still holds the same bytes: 0; or -1 with errno,
 * ESTALE if it doesn't. It is read only if it looks as if somebody wrote to it;
 * that its name was given to another file makes no difference. */
int metafile_look(struct metafile *m);

/* Writes the metafile's first 64 bytes. */
void metafile_encode_header(uint8_t header[METAFILE_HEADER_SIZE], uint64_t length,
			    uint64_t chunk_size, const uint8_t data_hash[SHA256_HASH_SIZE]);

/* Which chunks are held: those whose bytes are in the data file and have their
 * hash. It lives in memory that is shared with the processes forked later: the
 * fetcher's side adds, serving children look, and nobody ever removes. */
struct held {
	struct held *read_only;		/* the same memory, mapped once more; NULL: it isn't */
	atomic_bool some;		/* at least one is held */
	atomic_bool proven;		/* one of them is not all zeros */
	atomic_bool checked;		/* what the data file held at the start has been looked at */
	atomic_uint stamps;		/* odd while nobody of ours writes to the data file, which */
	struct stamp stamp;		/* has to look so then; even while somebody does */
	uint64_t chunks;
	_Atomic unsigned char bits[];	/* chunk i is bit i % 8 of byte i / 8 */
};

/* Nothing held yet of that many chunks. NULL with errno if there is no memory. */
struct held *held_new(uint64_t chunks);
void held_free(struct held *held);

/* Gives up the right to add, for this process and those that it forks later; what
 * others add is seen as before. On Linux there is no way back, so that whoever
 * takes such a process over can't make a chunk count; elsewhere mprotect(2) would
 * be one. Returns the map to use from now on, in place of held. */
struct held *held_read_only(struct held *held);

bool held_has(const struct held *held, uint64_t chunk);

/* Whether all chunks from first on, and before end, are held. */
bool held_has_all(const struct held *held, uint64_t first, uint64_t end);
void held_add(struct held *held, uint64_t chunk);
uint64_t held_count(const struct held *held);

#endif
