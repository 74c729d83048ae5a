/* metafile.c - reading and checking .cascade files, and writing their headers.
 *
 * The chunk hashes stay in the file, which may be larger than memory, and some are read at
 * a time. Another program could change them there. So each time hashes are read, and when
 * a caller asks, the metafile's size and times are compared with the last ones known. If
 * they differ, the whole metafile is hashed again. */
#include "file/metafile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/io.h"
#include "base/retry.h"
#include "csapp.h"

static const uint8_t magic[8] = "CASCADE1";

uint64_t metafile_chunk_count(uint64_t length, uint64_t chunk_size)
{
	return length / chunk_size + (length % chunk_size != 0);
}

uint64_t metafile_chunk_offset(const struct metafile *m, uint64_t chunk)
{
	return (m->ring > 0 ? chunk % m->ring : chunk) * m->chunk_size;
}

uint64_t metafile_chunk_length(const struct metafile *m, uint64_t chunk)
{
	uint64_t left = m->length - chunk * m->chunk_size;

	return left < m->chunk_size ? left : m->chunk_size;
}

bool metafile_is_named(const char *path)
{
	size_t len = strlen(path), suffix = strlen(METAFILE_SUFFIX);

	return len > suffix && strcmp(path + len - suffix, METAFILE_SUFFIX) == 0 &&
	       path[len - suffix - 1] != '/';
}

char *metafile_data_path(const char *path)
{
	return metafile_is_named(path) ? strndup(path, strlen(path) - strlen(METAFILE_SUFFIX)) : NULL;
}

/* Byte 0: magic; 8: reserved; 16: length; 24: chunk size; 32: hash. */
void metafile_encode_header(uint8_t header[METAFILE_HEADER_SIZE], uint64_t length,
			    uint64_t chunk_size, const uint8_t data_hash[SHA256_HASH_SIZE])
{
	memcpy(header, magic, 8);
	memset(header + 8, 0, 8);
	encode_be64(header + 16, length);
	encode_be64(header + 24, chunk_size);
	memcpy(header + 32, data_hash, SHA256_HASH_SIZE);
}

/* Returns what is wrong with the header of a metafile of that size, or NULL. */
static const char *decode_header(struct metafile *m, const uint8_t header[METAFILE_HEADER_SIZE],
				 uint64_t size)
{
	if (memcmp(header, magic, sizeof magic) != 0)
		return "not a metafile: it doesn't begin with CASCADE1";
	m->length = decode_be64(header + 16);
	m->chunk_size = decode_be64(header + 24);
	memcpy(m->data_hash, header + 32, SHA256_HASH_SIZE);
	if (m->chunk_size == 0)
		return "bad metafile: its chunk size is 0";
	if (m->length > METAFILE_LENGTH_MAX)
		return "bad metafile: its data file would have 2^63 bytes or more";
	m->chunks = metafile_chunk_count(m->length, m->chunk_size);
	uint64_t hashes = (size - METAFILE_HEADER_SIZE) / SHA256_HASH_SIZE;
	if (hashes < m->chunks)
		return "bad metafile: it has fewer hashes than chunks";
	if (hashes > m->chunks || size % SHA256_HASH_SIZE != 0)
		return "bad metafile: something follows its last hash";
	return NULL;
}

/* The system has failed: records that, and returns its words. */
static const char *unreadable(struct metafile *m)
{
	m->error = errno;
	return strerror(errno);
}

/* A data file of one chunk, or none, has the hash of that chunk, or of nothing. Returns what
 * is wrong, or NULL. */
static const char *check_only_chunk(struct metafile *m)
{
	SHA256_CTX ctx;
	uint8_t empty[SHA256_HASH_SIZE];
	const uint8_t *whole = empty;

	if (m->chunks > 1)
		return NULL;	/* that would take the data file */
	sha256_init(&ctx);
	sha256_final(&ctx, empty);
	if (m->chunks == 1 && (whole = metafile_chunk_hash(m, 0)) == NULL)
		return unreadable(m);
	if (memcmp(whole, m->data_hash, SHA256_HASH_SIZE) != 0)
		return "bad metafile: the hash of the whole contradicts that of its only part";
	return NULL;
}

/* Reads the file from its first byte to its last. Returns what is wrong, or NULL. */
static const char *read_and_check(struct metafile *m)
{
	uint8_t buffer[16384];
	struct stat st, after;
	SHA256_CTX ctx;
	uint64_t size = 0;
	ssize_t n;

	if (fstat(m->fd, &st) < 0)
		return unreadable(m);
	m->stamp = stamp_of(&st);
	if (!S_ISREG(st.st_mode))
		return "not a regular file";
	if (st.st_size < METAFILE_HEADER_SIZE)
		return "not a metafile: it is shorter than 64 bytes";
	sha256_init(&ctx);
	while ((n = rio_readn(m->fd, buffer, sizeof buffer)) > 0) {
		if (size == 0) {
			const char *why = n < METAFILE_HEADER_SIZE ? "it was cut short while it was read"
				: decode_header(m, buffer, (uint64_t)st.st_size);
			if (why != NULL)
				return why;
		}
		sha256_update(&ctx, buffer, (size_t)n);
		size += (uint64_t)n;
	}
	if (n < 0 || fstat(m->fd, &after) < 0)
		return unreadable(m);
	struct stamp now = stamp_of(&after);
	bool changed = size != (uint64_t)st.st_size || !stamp_is_unwritten(&now, &m->stamp);
	if (changed)
		return "it changed while it was read";
	sha256_final(&ctx, m->cascade_hash);
	return check_only_chunk(m);
}

int metafile_open(struct metafile *m, const char *path, const char **why)
{
	memset(m, 0, sizeof *m);
	m->path = path;
	*why = NULL;
	if (!metafile_is_named(path)) {
		*why = "its name doesn't end in " METAFILE_SUFFIX;
		return -1;
	}
	m->fd = retry_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);	/* a FIFO must not hold us up */
	if (m->fd < 0)
		*why = unreadable(m);
	else if ((*why = read_and_check(m)) != NULL)
		close(m->fd);
	return *why == NULL ? 0 : -1;
}

void metafile_close(struct metafile *m)
{
	close(m->fd);
}

/* Whether the metafile's bytes still have its hash: 0, or an errno. */
static int hash_again(const struct metafile *m)
{
	uint8_t buffer[16384], hash[SHA256_HASH_SIZE];
	uint64_t size = 0;
	SHA256_CTX ctx;
	ssize_t n;

	sha256_init(&ctx);
	while ((n = io_read_at(m->fd, buffer, sizeof buffer, size)) > 0) {
		sha256_update(&ctx, buffer, (size_t)n);
		size += (uint64_t)n;
	}
	sha256_final(&ctx, hash);
	return n < 0 ? errno : memcmp(hash, m->cascade_hash, SHA256_HASH_SIZE) == 0 ? 0 : ESTALE;
}

/* chmod(1), ln(1), touch(1) and rm(1) change the times as well, and not one byte: so a
 * metafile that looks changed is hashed before it is called so. */
int metafile_look(struct metafile *m)
{
	struct stat st;

	if (m->error == 0 && fstat(m->fd, &st) < 0)
		m->error = errno;
	if (m->error == 0) {
		struct stamp now = stamp_of(&st);
		if (!stamp_is_same(&now, &m->stamp)) {
			m->error = now.size == m->stamp.size ? hash_again(m) : ESTALE;
			m->stamp = now;		/* not otherwise: a child would copy its page */
		}
	}
	errno = m->error;
	return m->error == 0 ? 0 : -1;
}

/* Reads the hashes of the chunk and of those after it, as many as there is room for.
 * 0, or -1 with errno. */
static int read_hashes(struct metafile *m, uint64_t chunk)
{
	uint64_t left = m->chunks - chunk;
	size_t count = left < METAFILE_HASHES_AHEAD ? (size_t)left : METAFILE_HASHES_AHEAD;
	struct stamp before;
	ssize_t n;

	m->ahead_count = 0;
	do {
		before = m->stamp;
		n = io_read_at(m->fd, m->ahead, count * SHA256_HASH_SIZE,
			       METAFILE_HEADER_SIZE + chunk * SHA256_HASH_SIZE);
		if (n < 0 && m->error == 0)
			m->error = errno;
		/* If it looks changed and is not, it may have been changed and changed back:
		 * the hashes are read again. */
		if (metafile_look(m) < 0)
			return -1;
	} while (!stamp_is_same(&before, &m->stamp));
	if (n < SHA256_HASH_SIZE) {
		errno = m->error = EIO;
		return -1;
	}
	m->ahead_first = chunk;
	m->ahead_count = (uint64_t)n / SHA256_HASH_SIZE;
	return 0;
}

const uint8_t *metafile_chunk_hash(struct metafile *m, uint64_t chunk)
{
	bool is_in_memory = chunk >= m->ahead_first && chunk - m->ahead_first < m->ahead_count;

	if (!is_in_memory && read_hashes(m, chunk) < 0)
		return NULL;
	return m->ahead[chunk - m->ahead_first];
}
