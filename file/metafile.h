/* metafile.h - the .cascade file: its format, and which chunk of the data file lies where.
 * PROTOCOL.md, section 1. */
#ifndef METAFILE_H
#define METAFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/stamp.h"
#include "sha256.h"

#define METAFILE_SUFFIX ".cascade"
#define METAFILE_HEADER_SIZE 64		/* bytes before the first chunk hash */
#define METAFILE_LENGTH_MAX INT64_MAX		/* a data file's length fits into off_t */
#define METAFILE_HASHES_AHEAD 128		/* chunk hashes read at a time */

/* A metafile that was opened and checked. All sizes are in bytes. */
struct metafile {
	const char *path;			/* the caller's */
	int fd;					/* open for reading */
	struct stamp stamp;			/* how it looked when its bytes were hashed last */
	int error;				/* the errno of the first failure to open or read it, or 0 */
	uint64_t length;			/* of the data file */
	uint64_t chunk_size;			/* of every chunk but the last */
	uint64_t chunks;			/* how many */
	uint64_t ring;				/* chunks that the data file has room for at a time; the next
						 * takes the place of the first one; 0: for all */
	uint8_t data_hash[SHA256_HASH_SIZE];	/* of the whole data file */
	uint8_t cascade_hash[SHA256_HASH_SIZE];	/* of the metafile: its name on the network */
	/* The chunk hashes that were read last: ahead_count of them, from that of the
	 * chunk ahead_first on. */
	uint64_t ahead_first, ahead_count;
	uint8_t ahead[METAFILE_HASHES_AHEAD][SHA256_HASH_SIZE];
};

/* Opens the metafile at path, which is kept and not copied; checks all that can be
 * checked without the data file, and computes its cascade hash.
 * Returns 0, then metafile_close is to be called; or -1, then *why says what is wrong, in
 * static memory. If m->error is 0 then, the file could be read: it is a bad metafile. */
int metafile_open(struct metafile *m, const char *path, const char **why);

/* Closes the metafile. m is not used any more. */
void metafile_close(struct metafile *m);

/* Whether path ends in a name with the suffix, as a metafile's has to. */
bool metafile_is_named(const char *path);

/* The data file's path: the metafile's without its suffix, for the caller to free. NULL if
 * path doesn't end in a name with the suffix, or if memory ran out. */
char *metafile_data_path(const char *path);

/* How many chunks a data file of that length has. Both are in bytes, and chunk_size is not
 * 0. */
uint64_t metafile_chunk_count(uint64_t length, uint64_t chunk_size);

/* Where in the data file the chunk begins, in bytes. chunk < m->chunks. */
uint64_t metafile_chunk_offset(const struct metafile *m, uint64_t chunk);

/* The chunk's length in bytes: the chunk size, or less for the last chunk. chunk < m->chunks. */
uint64_t metafile_chunk_length(const struct metafile *m, uint64_t chunk);

/* The hash that the chunk must have, SHA256_HASH_SIZE bytes in m's memory, until the next
 * call. chunk < m->chunks. NULL with errno (m->error too) if it can't be read, now or at
 * some time before: ESTALE if somebody has written to the metafile. */
const uint8_t *metafile_chunk_hash(struct metafile *m, uint64_t chunk);

/* Whether the metafile that was opened still holds the same bytes, whatever has its name by
 * now. It is read only if its size or times have changed. Returns 0; or -1 with errno
 * (m->error too): ESTALE if the bytes are others. */
int metafile_look(struct metafile *m);

/* Writes the first 64 bytes of a metafile into header. length is that of the data file, and
 * chunk_size that of its chunks, in bytes; data_hash that of the whole data file. */
void metafile_encode_header(uint8_t header[METAFILE_HEADER_SIZE], uint64_t length,
			    uint64_t chunk_size, const uint8_t data_hash[SHA256_HASH_SIZE]);

#endif
