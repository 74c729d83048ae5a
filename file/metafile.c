/* metafile.c - reading and writing .cascade files; which chunk lies where;
 * which chunks are held. */
#define _GNU_SOURCE	/* memfd_create, and MAP_ANONYMOUS before POSIX.1-2024 */
#include "file/metafile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/retry.h"
#include "csapp.h"
#include "net/wire.h"

static const uint8_t magic[8] = "CASCADE1";

uint64_t metafile_chunk_count(uint64_t length, uint64_t chunk_size)
{
	return length / chunk_size + (length % chunk_size != 0);
}

uint64_t metafile_chunk_offset(const struct metafile *m, uint64_t chunk)
{
	return chunk * m->chunk_size;
}

uint64_t metafile_chunk_length(const struct metafile *m, uint64_t chunk)
{
	uint64_t left = m->length - metafile_chunk_offset(m, chunk);

	return left < m->chunk_size ? left : m->chunk_size;
}

char *metafile_data_path(const char *path)
{
	size_t len = strlen(path), suffix = strlen(METAFILE_SUFFIX);

	if (len <= suffix || strcmp(path + len - suffix, METAFILE_SUFFIX) != 0 ||
	    path[len - suffix - 1] == '/')
		return NULL;
	return strndup(path, len - suffix);
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

/* One chunk, or none, leaves nothing open: the whole is that chunk. */
static const char *check_whole(struct metafile *m)
{
	SHA256_CTX ctx;
	uint8_t empty[SHA256_HASH_SIZE];
	const uint8_t *whole = empty;

	if (m->chunks > 1)
		return NULL;
	sha256_init(&ctx);
	sha256_final(&ctx, empty);
	if (m->chunks == 1 && (whole = metafile_chunk_hash(m, 0)) == NULL)
		return strerror(errno);
	if (memcmp(whole, m->data_hash, SHA256_HASH_SIZE) != 0)
		return "bad metafile: the hash of the whole contradicts that of its only part";
	return NULL;
}

static const char *read_and_check(struct metafile *m)
{
	uint8_t buffer[16384];
	struct stat st, after;
	SHA256_CTX ctx;
	uint64_t size = 0;
	ssize_t n;

	if (fstat(m->fd, &st) < 0)
		return strerror(errno);
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
		return strerror(errno);
	struct stamp now = stamp_of(&after);
	if (size != (uint64_t)st.st_size || !stamp_is_unwritten(&now, &m->stamp))
		return "it changed while it was read";
	sha256_final(&ctx, m->cascade_hash);
	return check_whole(m);
}

int metafile_open(struct metafile *m, const char *path, const char **why)
{
	char *data_path = metafile_data_path(path);

	memset(m, 0, sizeof *m);
	m->path = path;
	*why = NULL;
	if (data_path == NULL) {
		*why = "its name doesn't end in " METAFILE_SUFFIX;
		return -1;
	}
	free(data_path);
	m->fd = retry_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);	/* a FIFO must not hold us up */
	if (m->fd < 0)
		*why = strerror(errno);
	else if ((*why = read_and_check(m)) != NULL)
		close(m->fd);
	return *why == NULL ? 0 : -1;
}

void metafile_close(struct metafile *m)
{
	close(m->fd);
}

static ssize_t read_at(const struct metafile *m, void *to, size_t size, uint64_t offset)
{
	ssize_t n;

	while ((n = pread(m->fd, to, size, (off_t)offset)) < 0 && errno == EINTR)
		;
	return n;
}

/* Whether the metafile's bytes still have its hash: 0, or an errno. */
static int hash_again(const struct metafile *m)
{
	uint8_t buffer[16384], hash[SHA256_HASH_SIZE];
	uint64_t size = 0;
	SHA256_CTX ctx;
	ssize_t n;

	sha256_init(&ctx);
	while ((n = read_at(m, buffer, sizeof buffer, size)) > 0) {
		sha256_update(&ctx, buffer, (size_t)n);
		size += (uint64_t)n;
	}
	sha256_final(&ctx, hash);
	return n < 0 ? errno : memcmp(hash, m->cascade_hash, SHA256_HASH_SIZE) == 0 ? 0 : ESTALE;
}

/* chmod, a new link, touch and a new file of the same name change the times as well,
 * and not one byte: what looks changed is hashed. */
int metafile_look(struct metafile *m)
{
	struct stat st;

	if (m->error == 0 && fstat(m->fd, &st) < 0)
		m->error = errno;
	if (m->error == 0) {
		struct stamp now = stamp_of(&st);
		if (!stamp_is_same(&now, &m->stamp))
			m->error = now.size == m->stamp.size ? hash_again(m) : ESTALE;
		m->stamp = now;
	}
	errno = m->error;
	return m->error == 0 ? 0 : -1;
}

/* Reads the hashes from that chunk's on, as many as there is room for. 0, or -1 with errno. */
static int read_ahead(struct metafile *m, uint64_t chunk)
{
	uint64_t left = m->chunks - chunk;
	size_t want = (left < METAFILE_HASHES_AHEAD ? (size_t)left : METAFILE_HASHES_AHEAD) * SHA256_HASH_SIZE;
	struct stamp before;
	ssize_t n;

	m->ahead_count = 0;
	do {
		before = m->stamp;
		n = read_at(m, m->ahead, want, METAFILE_HEADER_SIZE + chunk * SHA256_HASH_SIZE);
		if (n < 0 && m->error == 0)
			m->error = errno;
		/* What was read before somebody wrote is right. */
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
	if (chunk - m->ahead_first >= m->ahead_count && read_ahead(m, chunk) < 0)
		return NULL;
	return m->ahead[chunk - m->ahead_first];
}

static size_t held_size(uint64_t chunks)
{
	uint64_t bytes = chunks / 8 + 1;

	return bytes < SIZE_MAX - sizeof(struct held) ? sizeof(struct held) + (size_t)bytes : 0;
}

/* Maps memory for writing, and once more for reading alone. NULL: this system
 * can't do it so. */
#if defined(MFD_ALLOW_SEALING) && defined(F_ADD_SEALS) && !defined(PORTABLE)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u		/* some systems insist on it, older ones don't know it */
#endif

static struct held *map_twice(size_t size)
{
	struct held *held = MAP_FAILED, *read_only = MAP_FAILED;
	int fd = memfd_create("held", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0)
		fd = memfd_create("held", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return NULL;
	if (ftruncate(fd, (off_t)size) == 0)
		held = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	/* From the seal on, mappings can't be made writable. */
	if (held != MAP_FAILED && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0)
		read_only = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (read_only != MAP_FAILED) {
		held->read_only = read_only;
		return held;
	}
	if (held != MAP_FAILED)
		munmap(held, size);
	return NULL;
}

#else

static struct held *map_twice(size_t size)
{
	(void)size;
	return NULL;
}

#endif

struct held *held_new(uint64_t chunks)
{
	size_t size = held_size(chunks);
	struct held *held = map_twice(size);

	if (held == NULL)
		held = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (held == MAP_FAILED)
		return NULL;
	held->chunks = chunks;	/* all else is zero already */
	return held;
}

struct held *held_read_only(struct held *held)
{
	struct held *read_only = held->read_only;
	size_t size = held_size(held->chunks);

	if (read_only == NULL) {
		mprotect(held, size, PROT_READ);	/* a precaution: without it all works as well */
		return held;
	}
	if (read_only != held)
		munmap(held, size);
	return read_only;
}

void held_free(struct held *held)
{
	struct held *read_only = held->read_only;
	size_t size = held_size(held->chunks);

	munmap(held, size);
	if (read_only != NULL && read_only != held)
		munmap(read_only, size);
}

/* Release and acquire: who sees the bit also sees the chunk's bytes. */

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
