/* test_metafile.c - .cascade files, right ones and all kinds of wrong ones, made here byte for
 * byte as PROTOCOL.md has them; and which chunk lies where. */
#define _DEFAULT_SOURCE 1	/* preadv */
#include "file/metafile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "unit.h"

#define META_SIZE (200 << 10)	/* the largest metafile here is smaller */

/* ---- Faults on demand ---- */

static void (*before_read)(void);	/* called once, by the next read */
static int read_error;			/* an errno for all of them, or 0 */

/* It stands before the C library's. */
ssize_t read(int fd, void *buf, size_t n)
{
	struct iovec all = {buf, n};
	void (*hook)(void) = before_read;

	before_read = NULL;
	if (hook != NULL)
		hook();
	if (read_error != 0) {
		errno = read_error;
		return -1;
	}
	return readv(fd, &all, 1);
}

static int pread_error;			/* an errno for all of them; or -1: they find the end of the file; or 0 */

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	struct iovec all = {buf, n};

	if (pread_error == 0)
		return preadv(fd, &all, 1, offset);
	errno = pread_error;
	return pread_error > 0 ? -1 : 0;
}

/* ---- Metafiles ---- */

static char path[UNIT_PATH_SIZE];
static uint8_t meta[META_SIZE];		/* the bytes of the metafile that was made last */
static size_t meta_size;

static void put_be64(uint8_t *p, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		p[i] = (uint8_t)value;
}

/* What stands for the hash of a chunk. */
static void chunk_hash(uint64_t chunk, uint8_t hash[SHA256_HASH_SIZE])
{
	for (unsigned i = 0; i < SHA256_HASH_SIZE; i++)
		hash[i] = (uint8_t)((chunk >> (i % 4 * 8)) + i);
}

/* Makes the bytes of a metafile. With one chunk, or none, its hash of the whole is right. */
static void make_meta(uint64_t length, uint64_t chunk_size, uint64_t hashes)
{
	memcpy(meta, "CASCADE1\0\0\0\0\0\0\0\0", 16);
	put_be64(meta + 16, length);
	put_be64(meta + 24, chunk_size);
	unit_hash(meta, 0, meta + 32);
	if (length > 0)
		chunk_hash(0, meta + 32);
	for (uint64_t i = 0; i < hashes; i++)
		chunk_hash(i, meta + 64 + 32 * i);
	meta_size = 64 + 32 * (size_t)hashes;
}

static void write_meta(void)
{
	unit_write_file(path, meta, meta_size);
}

static const char *const no_reason = "-";

static int verdict_error;		/* which failure of the system metafile_open last named; 0: none */

/* What metafile_open says of that file, or no_reason if it takes it. It is closed again. */
static const char *verdict_on(const char *name)
{
	static struct metafile m;
	const char *why = "not set";
	int before = unit_open_fds(), result;

	memset(&m, 0x5a, sizeof m);
	result = metafile_open(&m, name, &why);
	verdict_error = m.error;
	if (result == 0)
		metafile_close(&m);
	CHECK(unit_open_fds() == before);
	CHECK(result == 0 || (result == -1 && why != NULL));
	return result == 0 ? no_reason : why != NULL ? why : "none";
}

/* The same of the bytes that were made, in a file. */
static const char *verdict(void)
{
	write_meta();
	return verdict_on(path);
}

static bool says(const char *why, const char *words)
{
	if (strstr(why, words) != NULL)
		return true;
	fprintf(stderr, "it says \"%s\" and not \"%s\"\n", why, words);
	return false;
}

static bool is_taken(void)
{
	return verdict() == no_reason;
}

/* ---- The header ---- */

static void test_encode_header(void)
{
	static const uint8_t want[64] = {
		'C', 'A', 'S', 'C', 'A', 'D', 'E', '1', 0, 0, 0, 0, 0, 0, 0, 0,
		0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78,
		0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8,
		0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
		0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
	uint8_t b[66];

	CHECK(METAFILE_HEADER_SIZE == 64);
	memset(b, 0xee, sizeof b);
	metafile_encode_header(b + 1, UINT64_C(0x7172737475767778), UINT64_C(0xa1a2a3a4a5a6a7a8), want + 32);
	CHECK(memcmp(b + 1, want, 64) == 0 && b[0] == 0xee && b[65] == 0xee);
}

static void test_round_trip(void)
{
	static const struct {
		uint64_t length, chunk_size, chunks;
	} file[] = {
		{0, 1, 0}, {0, UINT64_MAX, 0}, {1, 1, 1}, {5, UINT64_MAX, 1}, {1000, 64, 16}, {1024, 64, 16},
		{1025, 64, 17}, {INT64_MAX, INT64_MAX, 1}, {INT64_MAX, (uint64_t)1 << 62, 2},
		{INT64_MAX, (uint64_t)1 << 60, 8}, {6000, 1, 6000},
	};
	uint8_t header[64], hash[SHA256_HASH_SIZE];
	struct metafile m;
	const char *why;

	for (size_t i = 0; i < LENGTH(file); i++) {
		make_meta(file[i].length, file[i].chunk_size, file[i].chunks);
		metafile_encode_header(header, file[i].length, file[i].chunk_size, meta + 32);
		CHECK(memcmp(header, meta, 64) == 0);
		write_meta();
		if (!CHECK(metafile_open(&m, path, &why) == 0))
			continue;
		CHECK(m.path == path && why == NULL);
		CHECK(m.length == file[i].length && m.chunk_size == file[i].chunk_size);
		CHECK(m.chunks == file[i].chunks);
		CHECK(memcmp(m.data_hash, meta + 32, SHA256_HASH_SIZE) == 0);
		unit_hash(meta, meta_size, hash);
		CHECK(memcmp(m.cascade_hash, hash, SHA256_HASH_SIZE) == 0);
		CHECK((fcntl(m.fd, F_GETFD) & FD_CLOEXEC) != 0);
		metafile_close(&m);
	}
}

/* What is reserved may be anything; but the metafile is another one then. */
static void test_reserved_bytes(void)
{
	uint8_t hash[SHA256_HASH_SIZE];
	struct metafile m;
	const char *why;

	make_meta(1000, 64, 16);
	memset(meta + 8, 0xff, 8);
	write_meta();
	CHECK(metafile_open(&m, path, &why) == 0 && m.length == 1000 && m.chunks == 16);
	unit_hash(meta, meta_size, hash);
	CHECK(memcmp(m.cascade_hash, hash, SHA256_HASH_SIZE) == 0);
	metafile_close(&m);
}

/* The five that the course gave out. The smallest is known to the last byte. */
static void test_course_metafiles(void)
{
	static const uint8_t text_hash[SHA256_HASH_SIZE] = {
		0xc5, 0x60, 0x1d, 0x26, 0x69, 0x87, 0xac, 0x88, 0x5c, 0xa9, 0x65, 0x22, 0xb1, 0xb4, 0xe4, 0x39,
		0xfe, 0xb7, 0xec, 0xa3, 0x9f, 0x0f, 0xe1, 0x11, 0x1f, 0x73, 0x42, 0xb6, 0x3b, 0x64, 0x68, 0xf3};
	static const struct {
		uint64_t chunk_size, chunks, last, size;
	} course[] = {
		{1024, 5331, 279, 170656}, {10240, 534, 279, 17152}, {102400, 54, 30999, 1792},
		{1048576, 6, 215319, 256}, {10485760, 1, 5458199, 96},
	};
	char hex[2 * SHA256_HASH_SIZE + 1];
	struct metafile m;
	const char *why;

	for (size_t i = 0; i < LENGTH(course); i++) {
		make_meta(5458199, course[i].chunk_size, course[i].chunks);
		memcpy(meta + 32, text_hash, SHA256_HASH_SIZE);
		if (course[i].chunks == 1)
			memcpy(meta + 64, text_hash, SHA256_HASH_SIZE);
		CHECK(meta_size == course[i].size);
		write_meta();
		if (!CHECK(metafile_open(&m, path, &why) == 0))
			continue;
		CHECK(m.length == 5458199 && m.chunk_size == course[i].chunk_size);
		CHECK(m.chunks == course[i].chunks);
		CHECK(memcmp(m.data_hash, text_hash, SHA256_HASH_SIZE) == 0);
		CHECK(metafile_chunk_length(&m, m.chunks - 1) == course[i].last);
		for (size_t k = 0; k < SHA256_HASH_SIZE; k++)
			snprintf(hex + 2 * k, 3, "%02x", m.cascade_hash[k]);
		metafile_close(&m);
	}
	CHECK(strcmp(hex, "81b831d167d74a11d4a95fd11c41e895edbec56d79e5a29b162217a805b539a6") == 0);
}

/* ---- Refusals ---- */

static void test_wrong_names(void)
{
	static const char *const name[] = {"meta", "meta.cascad", "meta.CASCADE", "meta.cascade.txt",
					   "metacascade", ".cascade", "", "cascade"};
	char other[UNIT_PATH_SIZE];

	make_meta(1000, 64, 16);
	write_meta();
	for (size_t i = 0; i < LENGTH(name); i++) {
		unit_path(other, name[i]);
		CHECK(name[i][0] == '\0' || link(path, other) == 0);
		CHECK(says(verdict_on(other), "its name doesn't end in .cascade"));
		CHECK(says(verdict_on(name[i]), "its name doesn't end in .cascade"));
		if (name[i][0] != '\0')
			unlink(other);
	}
}

static void test_not_a_file(void)
{
	char other[UNIT_PATH_SIZE];

	unit_path(other, "other.cascade");
	CHECK(says(verdict_on(other), strerror(ENOENT)) && verdict_error == ENOENT);
	CHECK(mkdir(other, 0777) == 0);
	CHECK(says(verdict_on(other), "not a regular file") && verdict_error == 0);
	rmdir(other);
	CHECK(mkfifo(other, 0666) == 0);
	CHECK(says(verdict_on(other), "not a regular file") && verdict_error == 0);	/* and it doesn't wait for a writer */
	unlink(other);
}

static void test_too_short(void)
{
	static const size_t size[] = {0, 1, 8, 63};

	for (size_t i = 0; i < LENGTH(size); i++) {
		make_meta(0, 64, 0);
		meta_size = size[i];
		CHECK(says(verdict(), "shorter than 64 bytes"));
	}
	make_meta(0, 64, 0);
	CHECK(is_taken());
}

static void test_wrong_magic(void)
{
	for (size_t i = 0; i < 8; i++) {
		make_meta(1000, 64, 16);
		meta[i] ^= 0x01;
		CHECK(says(verdict(), "doesn't begin with CASCADE1"));
	}
}

static void test_wrong_numbers(void)
{
	make_meta(1000, 64, 16);
	put_be64(meta + 24, 0);
	CHECK(says(verdict(), "chunk size is 0"));
	make_meta(0, 64, 0);
	put_be64(meta + 24, 0);		/* nothing would be divided, but still */
	CHECK(says(verdict(), "chunk size is 0"));
	make_meta((uint64_t)1 << 63, (uint64_t)1 << 63, 1);
	CHECK(says(verdict(), "2^63"));
	make_meta(UINT64_MAX, UINT64_MAX, 1);
	CHECK(says(verdict(), "2^63"));
	make_meta(UINT64_MAX, 2, 0);
	CHECK(says(verdict(), "2^63"));
	make_meta(INT64_MAX, INT64_MAX, 1);
	CHECK(is_taken());
}

static void test_wrong_number_of_hashes(void)
{
	static const struct {
		uint64_t length, chunk_size, hashes;
		size_t extra;
		const char *why;	/* NULL: it is right */
	} file[] = {
		{1000, 64, 16, 0, NULL}, {1000, 64, 15, 0, "fewer hashes"}, {1000, 64, 15, 31, "fewer hashes"},
		{1000, 64, 0, 0, "fewer hashes"}, {1000, 64, 16, 1, "follows its last hash"},
		{1000, 64, 16, 31, "follows its last hash"}, {1000, 64, 17, 0, "follows its last hash"},
		{1000, 64, 1000, 0, "follows its last hash"}, {1024, 64, 16, 0, NULL},
		{1025, 64, 16, 0, "fewer hashes"}, {1024, 64, 17, 0, "follows its last hash"},
		{0, 64, 0, 1, "follows its last hash"}, {0, 64, 1, 0, "follows its last hash"},
		{1, 64, 0, 0, "fewer hashes"}, {INT64_MAX, 1, 2, 0, "fewer hashes"},
		{(uint64_t)1 << 59, 1, 0, 0, "fewer hashes"}, {(uint64_t)1 << 32, 1, 0, 0, "fewer hashes"},
		{((uint64_t)1 << 59) + 2, 1, 2, 0, "fewer hashes"},	/* 32 of those would wrap to 64 */
	};

	for (size_t i = 0; i < LENGTH(file); i++) {
		make_meta(file[i].length, file[i].chunk_size, file[i].hashes);
		meta_size += file[i].extra;
		const char *why = verdict();
		CHECK(file[i].why != NULL ? says(why, file[i].why) : why == no_reason);
	}
}

static void test_whole_and_part_differ(void)
{
	make_meta(10, 64, 1);
	meta[32 + 31] ^= 1;
	CHECK(says(verdict(), "contradicts"));
	make_meta(10, 64, 1);
	meta[64] ^= 1;
	CHECK(says(verdict(), "contradicts"));
	make_meta(0, 64, 0);
	meta[32] ^= 1;
	CHECK(says(verdict(), "contradicts"));
	make_meta(100, 64, 2);		/* of two parts nothing can be told */
	meta[32] ^= 1;
	CHECK(is_taken());
}

static void cut_to_10(void) { if (truncate(path, 10) < 0) abort(); }
static void cut_to_0(void) { if (truncate(path, 0) < 0) abort(); }
static void cut_to_100(void) { if (truncate(path, 100) < 0) abort(); }
static void lengthen(void) { if (truncate(path, (off_t)meta_size + 32) < 0) abort(); }

static void test_changed_meanwhile(void)
{
	make_meta(1000, 64, 16);
	before_read = cut_to_10;
	CHECK(says(verdict(), "cut short while it was read"));
	before_read = cut_to_100;
	CHECK(says(verdict(), "changed while it was read"));
	before_read = cut_to_0;
	CHECK(says(verdict(), "changed while it was read"));
	before_read = lengthen;
	CHECK(says(verdict(), "changed while it was read"));
	read_error = EIO;
	CHECK(says(verdict(), strerror(EIO)) && verdict_error == EIO);
	read_error = 0;
	CHECK(is_taken());
}

/* ---- Which chunk lies where ---- */

static void test_chunk_count(void)
{
	static const struct {
		uint64_t length, chunk_size, count;
	} known[] = {
		{0, 1, 0}, {0, UINT64_MAX, 0}, {1, 1, 1}, {1, 2, 1}, {2, 2, 1}, {3, 2, 2}, {1000, 64, 16},
		{INT64_MAX, 1, INT64_MAX}, {INT64_MAX, 2, (uint64_t)1 << 62}, {INT64_MAX, INT64_MAX, 1},
		{INT64_MAX, INT64_MAX - 1, 2}, {INT64_MAX, UINT64_MAX, 1}, {INT64_MAX, (uint64_t)1 << 63, 1},
		{INT64_MAX, 1 << 20, (uint64_t)1 << 43}, {INT64_MAX, 7, INT64_MAX / 7},
		{INT64_MAX - 1, 7, INT64_MAX / 7}, {INT64_MAX - 7, 7, INT64_MAX / 7 - 1},
		{UINT64_MAX, UINT64_MAX, 1}, {UINT64_MAX, 2, (uint64_t)1 << 63},
	};

	for (size_t i = 0; i < LENGTH(known); i++)
		CHECK(metafile_chunk_count(known[i].length, known[i].chunk_size) == known[i].count);
}

/* Of each file: the first chunks follow each other, and the last ends where the file does. */
static void test_offsets_and_lengths(void)
{
	static const uint64_t length[] = {1, 63, 64, 65, 1000, 1 << 20, UINT32_MAX, (uint64_t)1 << 32,
					  ((uint64_t)1 << 62) + 1, INT64_MAX - 1, INT64_MAX};
	static const uint64_t chunk_size[] = {1, 2, 63, 64, 1000, 1 << 20, UINT32_MAX, (uint64_t)1 << 40,
					      INT64_MAX - 1, INT64_MAX, UINT64_MAX};
	static struct metafile m;

	for (size_t l = 0; l < LENGTH(length); l++)
		for (size_t s = 0; s < LENGTH(chunk_size); s++) {
			m.length = length[l];
			m.chunk_size = chunk_size[s];
			m.chunks = metafile_chunk_count(m.length, m.chunk_size);
			uint64_t last = m.chunks - 1, at = metafile_chunk_offset(&m, last);
			uint64_t size = metafile_chunk_length(&m, last);
			CHECK(at < m.length && size > 0 && size <= m.chunk_size && at + size == m.length);
			CHECK(metafile_chunk_offset(&m, 0) == 0);
			for (uint64_t i = 0; i < 3 && i < last; i++) {
				CHECK(metafile_chunk_length(&m, i) == m.chunk_size);
				CHECK(metafile_chunk_offset(&m, i + 1) == (i + 1) * m.chunk_size);
			}
			if (last > 0)
				CHECK(metafile_chunk_length(&m, last - 1) == m.chunk_size);
		}
}

/* ---- Chunk hashes ---- */

enum { MANY = 5 * METAFILE_HASHES_AHEAD + 7 };

static void open_many(struct metafile *m)
{
	const char *why;

	make_meta(MANY, 1, MANY);
	write_meta();
	if (metafile_open(m, path, &why) < 0)
		abort();
}

static bool has_hash(struct metafile *m, uint64_t chunk)
{
	uint8_t want[SHA256_HASH_SIZE];
	const uint8_t *hash = metafile_chunk_hash(m, chunk);

	chunk_hash(chunk, want);
	return hash != NULL && memcmp(hash, want, SHA256_HASH_SIZE) == 0;
}

static void test_chunk_hashes(void)
{
	struct metafile m;

	open_many(&m);
	CHECK(has_hash(&m, MANY - 1));		/* the first that is asked for */
	for (uint64_t i = 0; i < MANY; i++)
		CHECK(has_hash(&m, i));
	for (uint64_t i = MANY; i-- > 0; )
		CHECK(has_hash(&m, i));
	for (uint64_t i = 0; i < MANY; i += METAFILE_HASHES_AHEAD)
		CHECK(has_hash(&m, i) && (i == 0 || has_hash(&m, i - 1)) && has_hash(&m, i));
	srand(5);
	for (int i = 0; i < 5000; i++)
		CHECK(has_hash(&m, (uint64_t)rand() % MANY));
	metafile_close(&m);
}

static bool fails(struct metafile *m, uint64_t chunk, int error)
{
	errno = 0;
	return metafile_chunk_hash(m, chunk) == NULL && errno == error && m->error == error;
}

static int64_t written_ns(const char *of)
{
	struct stat st;

	if (stat(of, &st) < 0)
		abort();
	return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

/* Writes to the metafile, later than whoever wrote to it last: the clock of a file system
 * may stand still for some milliseconds. */
static void write_at(off_t offset, const void *bytes, size_t size)
{
	char clock[UNIT_PATH_SIZE];
	int fd = open(path, O_WRONLY);

	do
		unit_write_file(unit_path(clock, "clock"), "x", 1);
	while (written_ns(clock) <= written_ns(path));
	if (fd < 0 || pwrite(fd, bytes, size, offset) != (ssize_t)size || close(fd) < 0)
		abort();
}

static void test_metafile_shrinks(void)
{
	struct metafile m;

	open_many(&m);
	CHECK(has_hash(&m, 0));
	CHECK(truncate(path, 64 + 32 * (METAFILE_HASHES_AHEAD + 10)) == 0);
	CHECK(has_hash(&m, METAFILE_HASHES_AHEAD - 1));		/* read before, and right */
	CHECK(fails(&m, METAFILE_HASHES_AHEAD, ESTALE));
	CHECK(fails(&m, 0, ESTALE));				/* nothing stale */
	CHECK(metafile_look(&m) < 0 && errno == ESTALE);
	write_meta();
	CHECK(fails(&m, 5, ESTALE));				/* it is not trusted any more */
	metafile_close(&m);
}

/* One byte, in a hash that is read later, or in the header, which is not. */
static void test_metafile_rewritten(void)
{
	static const off_t place[] = {0, 9, 40, 64 + 32 * (MANY - 1)};

	for (size_t i = 0; i < LENGTH(place); i++) {
		struct metafile m;
		open_many(&m);
		CHECK(has_hash(&m, 0) && metafile_look(&m) == 0);
		write_at(place[i], "\377", 1);
		CHECK(has_hash(&m, METAFILE_HASHES_AHEAD - 1));
		CHECK(fails(&m, METAFILE_HASHES_AHEAD, ESTALE));
		metafile_close(&m);
		open_many(&m);
		write_at(place[i], "\377", 1);
		CHECK(metafile_look(&m) < 0 && errno == ESTALE && fails(&m, 0, ESTALE));
		metafile_close(&m);
	}
}

/* The time of writing is set back, the length is the same. */
static void test_metafile_rewritten_in_secret(void)
{
	struct timespec times[2];
	struct metafile m;
	struct stat st;

	open_many(&m);
	CHECK(stat(path, &st) == 0);
	write_at(70, "\377", 1);
	times[0] = times[1] = st.st_mtim;
	CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
	CHECK(fails(&m, 0, ESTALE));
	metafile_close(&m);
}

static void rewrite_reserved(void)
{
	write_at(9, "\377", 1);
}

/* Of the same length, and what is read is a right metafile. */
static void test_metafile_rewritten_while_read(void)
{
	make_meta(1000, 64, 16);
	before_read = rewrite_reserved;
	CHECK(says(verdict(), "changed while it was read"));
	CHECK(is_taken());
}

/* Other times, modes and links, or another file of that name: the bytes are the same. */
static void test_metafile_touched(void)
{
	char other[UNIT_PATH_SIZE];
	struct metafile m;

	open_many(&m);
	CHECK(has_hash(&m, 0));
	write_meta();
	CHECK(has_hash(&m, METAFILE_HASHES_AHEAD) && metafile_look(&m) == 0);
	CHECK(utimensat(AT_FDCWD, path, NULL, 0) == 0 && chmod(path, 0600) == 0);
	CHECK(has_hash(&m, 2 * METAFILE_HASHES_AHEAD));
	unit_write_file(unit_path(other, "other"), "x", 1);
	CHECK(rename(other, path) == 0);
	CHECK(has_hash(&m, 3 * METAFILE_HASHES_AHEAD) && metafile_look(&m) == 0);
	CHECK(has_hash(&m, 0) && has_hash(&m, MANY - 1));
	metafile_close(&m);
}

static void test_metafile_unreadable(void)
{
	struct metafile m;

	open_many(&m);
	close(m.fd);
	CHECK(fails(&m, 0, EBADF) && metafile_look(&m) < 0 && errno == EBADF);
}

/* The first reason counts; and what can't be read is not taken for changed. */
static void test_hashes_that_cannot_be_read(void)
{
	struct metafile m;

	make_meta(1000, 1000, 1);
	pread_error = ENXIO;
	CHECK(says(verdict(), strerror(ENXIO)) && verdict_error == ENXIO);
	pread_error = 0;
	CHECK(is_taken());
	open_many(&m);
	pread_error = ENXIO;
	CHECK(fails(&m, 0, ENXIO));
	pread_error = EBADF;
	CHECK(fails(&m, 0, ENXIO));
	pread_error = 0;
	CHECK(fails(&m, 0, ENXIO));
	metafile_close(&m);
	open_many(&m);
	pread_error = -1;
	CHECK(fails(&m, 0, EIO));
	pread_error = 0;
	metafile_close(&m);
	open_many(&m);
	write_meta();			/* touched, so it is hashed */
	pread_error = ENXIO;
	CHECK(metafile_look(&m) < 0 && errno == ENXIO && m.error == ENXIO);
	pread_error = 0;
	metafile_close(&m);
}

/* ---- Names ---- */

static void test_data_path(void)
{
	static const struct {
		const char *path, *data;
	} known[] = {
		{"a.cascade", "a"}, {"dir/a.txt.cascade", "dir/a.txt"}, {"/a.cascade", "/a"},
		{"a.cascade.cascade", "a.cascade"}, {".cascade.cascade", ".cascade"}, {"./x.cascade", "./x"},
		{"x.cascade/y.cascade", "x.cascade/y"}, {" .cascade", " "},
		{".cascade", NULL}, {"/.cascade", NULL}, {"dir/.cascade", NULL}, {"a.cascade/.cascade", NULL},
		{"", NULL}, {"a", NULL}, {"cascade", NULL}, {"acascade", NULL}, {"a.Cascade", NULL},
		{"a.cascade ", NULL}, {"a.cascade/", NULL}, {"a.cascade.", NULL}, {"a.cascad", NULL},
	};

	for (size_t i = 0; i < LENGTH(known); i++) {
		char *data = metafile_data_path(known[i].path);
		if (known[i].data == NULL)
			CHECK(data == NULL);
		else
			CHECK(data != NULL && strcmp(data, known[i].data) == 0);
		free(data);
	}
}

static int run_all(void)
{
	unit_path(path, "meta" METAFILE_SUFFIX);
	RUN(test_encode_header);
	RUN(test_round_trip);
	RUN(test_reserved_bytes);
	RUN(test_course_metafiles);
	RUN(test_wrong_names);
	RUN(test_not_a_file);
	RUN(test_too_short);
	RUN(test_wrong_magic);
	RUN(test_wrong_numbers);
	RUN(test_wrong_number_of_hashes);
	RUN(test_whole_and_part_differ);
	RUN(test_changed_meanwhile);
	RUN(test_chunk_count);
	RUN(test_offsets_and_lengths);
	RUN(test_chunk_hashes);
	RUN(test_metafile_shrinks);
	RUN(test_metafile_rewritten);
	RUN(test_metafile_rewritten_in_secret);
	RUN(test_metafile_rewritten_while_read);
	RUN(test_metafile_touched);
	RUN(test_metafile_unreadable);
	RUN(test_hashes_that_cannot_be_read);
	RUN(test_data_path);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
