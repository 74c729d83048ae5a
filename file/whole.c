/* whole.c - reads the data file from its first byte to its last; run by the fetcher.
 * What follows in a file that is too long is not looked at. */
#include "file/whole.h"

#include <errno.h>
#include <string.h>

#include "base/io.h"

int whole_check(const struct metafile *m, int fd, void (*progress)(void *arg, uint64_t bytes),
		       void *arg)
{
	static uint8_t buffer[192 << 10];
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	sha256_init(&ctx);
	for (uint64_t done = 0; done < m->length; ) {
		uint64_t left = m->length - done;
		size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
		ssize_t n = io_read_at(fd, buffer, piece, done);
		if (n >= 0 && (size_t)n < piece)
			errno = EIO;
		if (n < 0 || (size_t)n < piece)
			return -1;
		sha256_update(&ctx, buffer, piece);
		done += piece;
		progress(arg, done);
	}
	sha256_final(&ctx, hash);
	return memcmp(hash, m->data_hash, SHA256_HASH_SIZE) == 0;
}
