/* datafile_common.h - what test_datafile.c and test_datafile_fails.c need: datafile.c with calls that
 * fail on demand, and a data file with its metafile. */
#ifndef DATAFILE_COMMON_H
#define DATAFILE_COMMON_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/retry.h"
#include "file/held.h"
#include "file/metafile.h"
#include "file/sync.h"
#include "unit.h"

/* ---- Faults on demand ---- */

/* datafile.c is included, not linked: calls in it fail by name, and a file can seem to be a
 * block device. */
static struct {
	const char *call;	/* NULL: none fails */
	int error;
	int times;		/* that it fails, from the first call on; -1: always */
} fault;
static bool seems_device;
static void (*during_fstat)(void);	/* called once, by the next fstat */

static inline bool is_to_fail(const char *call)
{
	if (fault.call == NULL || strcmp(fault.call, call) != 0 || fault.times == 0)
		return false;
	fault.times -= fault.times > 0;
	errno = fault.error;
	return true;
}

static inline void fail(const char *call, int error, int times)
{
	fault.call = call;
	fault.error = error;
	fault.times = times;
}

static inline int disguise(int result, struct stat *st)
{
	if (result == 0 && seems_device && S_ISREG(st->st_mode))
		st->st_mode = S_IFBLK | 0600;
	return result;
}

static inline int fstat_for_test(int fd, struct stat *st)
{
	void (*hook)(void) = during_fstat;

	during_fstat = NULL;
	if (hook != NULL)
		hook();
	return is_to_fail("fstat") ? -1 : disguise(fstat(fd, st), st);
}

#define fstat(fd, st) fstat_for_test(fd, st)
#define stat(path, st) (is_to_fail("stat") ? -1 : disguise(stat(path, st), st))
#define flock(...) (is_to_fail("flock") ? -1 : flock(__VA_ARGS__))
#define ftruncate(...) (is_to_fail("ftruncate") ? -1 : ftruncate(__VA_ARGS__))
#define retry_open(path, flags, mode) \
	(is_to_fail((flags) & O_RDWR ? "open" : "open to read") ? -1 : retry_open(path, flags, mode))
#define io_read_at(...) (is_to_fail("read") ? -1 : io_read_at(__VA_ARGS__))
#define io_write_at(...) (is_to_fail("write") ? fault.error : io_write_at(__VA_ARGS__))
#define io_file_size(...) (is_to_fail("size") ? -1 : io_file_size(__VA_ARGS__))
#define memory_shared(size) (is_to_fail("memory") ? NULL : memory_shared(size))
#define held_new(...) (is_to_fail("held") ? NULL : held_new(__VA_ARGS__))
#define metafile_data_path(path) (is_to_fail("path") ? NULL : metafile_data_path(path))
#include "file/datafile.c"
#undef fstat
#undef stat
#undef flock
#undef ftruncate
#undef retry_open
#undef io_read_at
#undef io_write_at
#undef io_file_size
#undef memory_shared
#undef held_new
#undef metafile_data_path

enum { CHUNK_SIZE = 1000, LAST_SIZE = 300, CHUNKS = 10, SIZE = (CHUNKS - 1) * CHUNK_SIZE + LAST_SIZE };
enum { MARK_END = (SIZE + 63) / 64 * 64 + 64 };	/* the length of a file with a mark */

/* In the place of file/sync.c: counts, and fails when it is to. */
static int file_syncs, folder_syncs;
static bool file_sync_fails, folder_sync_fails;

int sync_file(int fd)
{
	(void)fd;
	file_syncs++;
	errno = EIO;
	return file_sync_fails ? -1 : 0;
}

int sync_folder(const char *of)
{
	(void)of;
	folder_syncs++;
	errno = EIO;
	return folder_sync_fails ? -1 : 0;
}

/* ---- A data file ---- */

static char path[UNIT_PATH_SIZE], meta_path[UNIT_PATH_SIZE], other[UNIT_PATH_SIZE];
static uint8_t right[SIZE], user[2 * SIZE];
static struct datafile d;

static inline void make_metafile(const char *name)
{
	uint8_t meta[METAFILE_HEADER_SIZE + CHUNKS * SHA256_HASH_SIZE], hash[SHA256_HASH_SIZE];

	unit_hash(right, SIZE, hash);
	metafile_encode_header(meta, SIZE, CHUNK_SIZE, hash);
	for (size_t i = 0; i < CHUNKS; i++)
		unit_hash(right + i * CHUNK_SIZE, i < CHUNKS - 1 ? CHUNK_SIZE : LAST_SIZE,
			  meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	unit_write_file(name, meta, sizeof meta);
}

static inline void set_up(void)
{
	for (size_t i = 0; i < sizeof user; i++)
		user[i] = (uint8_t)(i * 13 + 1);
	for (size_t i = 0; i < SIZE; i++)
		right[i] = (uint8_t)(i * 7 + i / 251);
	unit_path(path, "data");
	unit_path(meta_path, "data" METAFILE_SUFFIX);
	unit_path(other, "other");
	make_metafile(meta_path);
}

static inline void write_data(const void *bytes, size_t size)
{
	unlink(path);
	unit_write_file(path, bytes, size);
}

static inline int open_data(void)
{
	memset(&d, 0, sizeof d);
	return datafile_open(&d, meta_path, path);
}

static inline int open_device(bool force)
{
	memset(&d, 0, sizeof d);
	d.force = force;
	return datafile_open(&d, meta_path, path);
}

/* Gives back what a test has opened; d may be closed already. */
static inline void end_data(void)
{
	close(d.fd);
	metafile_close(&d.meta);
	held_free(d.held);
}

static inline bool file_has(const void *bytes, size_t size)
{
	static uint8_t found[3 * SIZE];
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, found, sizeof found);

	close(fd);
	return n == (ssize_t)size && memcmp(found, bytes, size) == 0;
}

static inline off_t file_size(void)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

static inline void no_progress(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

static inline int claim(bool force)
{
	return datafile_claim(&d, force, 1, no_progress);
}

/* Makes a new data file, to be written with or without --fsync. */
static inline void begin_to_sync(bool sync)
{
	unlink(path);
	CHECK(open_data() == 0 && claim(false) == 0);
	d.sync = sync;
	CHECK(datafile_begin_write(&d) == 0);
	file_syncs = folder_syncs = 0;
}

/* Whether so many were put onto the disk since this was asked last. */
static inline bool were_synced(int files, int folders)
{
	bool so = file_syncs == files && folder_syncs == folders;

	file_syncs = folder_syncs = 0;
	return so;
}

/* How the file at the path looks to a child that serves. */
static inline enum datafile_look look(void)
{
	int fd = open(path, O_RDONLY);
	enum datafile_look seen = datafile_look(&d, fd);

	close(fd);
	return seen;
}

/* For during_fstat: from a file to a device, or back. */
static inline void change_kind(void)
{
	seems_device = !seems_device;
}

#endif
