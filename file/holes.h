/* holes.h - zeros in a data file: those that the file system keeps as holes, without
 * bytes on the disk, and those that were written. */
#ifndef HOLES_H
#define HOLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

/* A part of a file without holes: the bytes from begin up to end. */
struct extent {
	uint64_t begin, end;
};

/* What is known of the file's data before looking for it, which may take long: a file
 * that has all its blocks on the disk is one extent, up to length (bytes) at most. Of
 * other files nothing is known, and the extent is empty. */
struct extent holes_begin(int fd, uint64_t length);

/* Sets *data to the data that the byte `at` lies in, or else to the next after it, and
 * to length (bytes) if there is none before. *data is what was found last in this
 * file, or what holes_begin returned. Where the system can't tell,
 * everything is data. */
void holes_find_data(struct extent *data, int fd, uint64_t at, uint64_t length);

/* The hash of a chunk of that many bytes, all zero. In static memory, until the next
 * call for another size. */
const uint8_t *holes_zero_hash(uint64_t chunk_size);

/* Whether each of these bytes is that one. */
bool holes_is_repeated(uint8_t byte, const uint8_t *bytes, size_t size);

/* Whether the first size bytes of the file are nothing but zeros and holes. The file is
 * read up to the first other byte. False also if it can't be read, or is shorter. */
bool holes_file_is_zeros(int fd, uint64_t size);

#endif
