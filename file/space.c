/* space.c - looked at by the fetcher, before it asks anybody for the first byte. */
#include "file/space.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#define BLOCK_SIZE 512		/* bytes: what st_blocks counts */

uint64_t space_needed(const struct datafile *d)
{
	const struct metafile *m = &d->meta;
	uint64_t size = m->ring > 0 ? m->ring * m->chunk_size : m->length;
	uint64_t missing = datafile_missing_bytes(d), absent;
	struct stat st;

	if (fstat(d->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	uint64_t blocks = (uint64_t)st.st_blocks;
	absent = blocks < size / BLOCK_SIZE ? size - blocks * BLOCK_SIZE : 0;
	return missing < absent ? missing : absent;
}

uint64_t space_free(const struct datafile *d)
{
	struct statvfs disk;

	if (fstatvfs(d->fd, &disk) < 0 || disk.f_blocks == 0 || disk.f_frsize == 0)
		return UINT64_MAX;
	uint64_t blocks = disk.f_bavail, size = disk.f_frsize;
	return blocks <= UINT64_MAX / size ? blocks * size : UINT64_MAX;
}
