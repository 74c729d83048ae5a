/* fuzz_metafile.c - the input is a metafile. One that is taken has a size that fits its
 * numbers, and its chunks are the data file, without gap or overlap. */
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "file/metafile.h"

static char path[] = "/tmp/cascade-fuzz.XXXXXX.cascade";
static int fd = -1;

static void remove_file(void)
{
	unlink(path);
}

static void check_chunk(struct metafile *m, const uint8_t *data, uint64_t chunk)
{
	const uint8_t *hash = metafile_chunk_hash(m, chunk);
	uint64_t offset = metafile_chunk_offset(m, chunk), length = metafile_chunk_length(m, chunk);

	MUST(hash != NULL && memcmp(hash, data + 64 + 32 * chunk, 32) == 0);
	MUST(length > 0 && length <= m->chunk_size && offset < m->length && length <= m->length - offset);
	MUST(offset + length == (chunk == m->chunks - 1 ? m->length : metafile_chunk_offset(m, chunk + 1)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct metafile m;
	const char *why = NULL;

	if (fd < 0) {
		fd = mkstemps(path, 8);
		atexit(remove_file);
	}
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (metafile_open(&m, path, &why) < 0) {
		MUST(why != NULL && *why != '\0');
		return 0;
	}
	MUST(size >= 64 && memcmp(data, "CASCADE1", 8) == 0 && size == 64 + 32 * m.chunks);
	MUST(m.length == be64(data + 16) && m.chunk_size == be64(data + 24) && m.chunk_size > 0);
	MUST(m.length <= INT64_MAX && memcmp(m.data_hash, data + 32, 32) == 0);
	for (uint64_t chunk = 0; chunk < m.chunks; chunk++)
		check_chunk(&m, data, chunk);
	if (m.chunks > 0)
		check_chunk(&m, data, 0);	/* read again, maybe */
	metafile_close(&m);
	return 0;
}
