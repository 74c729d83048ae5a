/* datafile.c - opening data files with care; run at start-up, and by the
 * fetcher before it writes. */
#define _DEFAULT_SOURCE 1	/* MAP_ANONYMOUS, before POSIX.1-2024 */
#include "file/datafile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file/check.h"
#include "base/log.h"
#include "base/retry.h"

/* Opens it for writing if that can be, else for reading alone: a complete file
 * on a read-only disk can be served. O_NONBLOCK is for what is no file. */
static int open_data(struct datafile *d)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	d->writable = true;
	d->fd = retry_open(d->path, O_RDWR | O_CREAT | flags, 0666);
	if (d->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM || errno == ETXTBSY)) {
		int why = errno;
		d->writable = false;
		d->fd = retry_open(d->path, O_RDONLY | flags, 0);
		if (d->fd < 0)
			errno = why;
	}
	return d->fd;
}

/* Who looks at the file shares the lock with others; a fetcher that writes has
 * it alone, until it ends. */
static int lock_data(struct datafile *d, int operation)
{
	int result;

	while ((result = flock(d->fd, operation | LOCK_NB)) < 0 && errno == EINTR)
		;
	if (result == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		log_warnx("%s: another process is downloading it", d->path);
	else
		log_warn("%s: can't be locked", d->path);
	return -1;
}

/* Flags that all processes share, a page of them at a time: each mapping would make
 * each fork dearer. */
static atomic_bool *new_flag(void)
{
	enum { COUNT = 4096 / sizeof(atomic_bool) };
	static atomic_bool *flags;
	static size_t used = COUNT;

	if (used == COUNT) {
		void *page = mmap(NULL, COUNT * sizeof *flags, PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			return NULL;
		flags = page;
		used = 0;
	}
	return &flags[used++];
}

/* Nobody of ours writes to the data file now: from here on it is compared. */
static void put_stamp(struct held *held, const struct stamp *stamp)
{
	held->stamp = *stamp;
	atomic_fetch_add(&held->stamps, 1);
}

int datafile_open(struct datafile *d, const char *metafile_path, const char *path)
{
	const char *why;
	struct stat st;

	if (metafile_open(&d->meta, metafile_path, &why) < 0) {
		log_warnx("%s: %s", metafile_path, why);
		return -1;
	}
	d->path = path != NULL ? path : metafile_data_path(metafile_path);
	d->held = d->path != NULL ? held_new(d->meta.chunks) : NULL;
	d->lost = new_flag();
	d->missed = new_flag();
	d->damaged = new_flag();
	d->writer_ended = new_flag();
	if (d->held == NULL || d->lost == NULL || d->missed == NULL || d->damaged == NULL ||
	    d->writer_ended == NULL) {
		log_warn("%s", metafile_path);
		return -1;
	}
	if (open_data(d) < 0 || fstat(d->fd, &st) < 0) {
		log_warn("%s", d->path);
		return -1;
	}
	if (!S_ISREG(st.st_mode)) {
		log_warnx("%s: not a regular file", d->path);
		return -1;
	}
	d->device = st.st_dev;
	d->inode = st.st_ino;
	d->stamp = stamp_of(&st);
	put_stamp(d->held, &d->stamp);
	d->empty = st.st_size == 0;
	d->too_long = (uint64_t)st.st_size > d->meta.length;
	return lock_data(d, LOCK_SH);
}

/* ---- whose it is ------------------------------------------------------------ */

/* Bytes of ours in a file are known by their hashes, once a chunk is whole. Before
 * that, nothing tells a download that was killed from a file of the user's; and chunks
 * may be large, and arrive many at a time. So the file is marked before the first byte
 * is written to it, and until a chunk is verified that is proof (check.h): it is longer
 * by the mark, which names the metafile. The mark is part of the file, so it can't be
 * lost or left behind, as one in a file of its own, and works on any file system, as
 * extended attributes don't. It lies within one page, so that no kill finds it
 * half-written. */
static const char mark_text[32] = "cascade: nothing verified yet";

#define MARK_SIZE 64	/* the text, and the cascade hash */

static uint64_t mark_offset(const struct metafile *m)
{
	return metafile_chunk_count(m->length, MARK_SIZE) * MARK_SIZE;
}

static void make_mark(const struct metafile *m, uint8_t mark[MARK_SIZE])
{
	memcpy(mark, mark_text, sizeof mark_text);
	memcpy(mark + sizeof mark_text, m->cascade_hash, SHA256_HASH_SIZE);
}

static bool has_mark(const struct datafile *d)
{
	uint64_t offset = mark_offset(&d->meta);
	uint8_t mark[MARK_SIZE], found[MARK_SIZE];

	make_mark(&d->meta, mark);
	return (uint64_t)d->stamp.size == offset + MARK_SIZE &&
	       pread(d->fd, found, MARK_SIZE, (off_t)offset) == MARK_SIZE && memcmp(found, mark, MARK_SIZE) == 0;
}

int datafile_mark(struct datafile *d)
{
	uint8_t mark[MARK_SIZE];
	unsigned failures = 0;
	ssize_t n;

	if (d->marked || atomic_load(&d->held->proven))
		return 0;
	make_mark(&d->meta, mark);
	while ((n = pwrite(d->fd, mark, MARK_SIZE, (off_t)mark_offset(&d->meta))) < 0 &&
	       retry_after(errno, &failures))
		;
	/* A file that can't be longer does without, and is resumed by force. */
	if (n < 0 && errno != EFBIG && errno != EINVAL)
		return errno;
	if (n >= 0 && n < MARK_SIZE)
		return ENOSPC;
	d->marked = true;
	return 0;
}

static int set_length(const struct datafile *d)
{
	unsigned failures = 0;
	int result;

	while ((result = ftruncate(d->fd, (off_t)d->meta.length)) < 0 && retry_after(errno, &failures))
		;
	return result;
}

int datafile_unmark(struct datafile *d, bool complete)
{
	if (!d->marked || (!complete && !atomic_load(&d->held->proven)))
		return 0;
	if (set_length(d) < 0) {
		log_warn("%s: can't be given its length", d->path);
		return -1;
	}
	d->marked = false;
	return 0;
}

int datafile_check(struct datafile *d, unsigned workers, bool until_proven,
		   void (*progress)(void *arg, uint64_t bytes))
{
	struct check_plan plan = {.path = d->path, .workers = workers, .until_proven = until_proven,
		.progress = progress};

	if (check_data_file(&d->meta, d->fd, d->held, &plan, &d->checked) == 0)
		return 0;
	if (d->meta.error != 0)
		datafile_lose(d);
	else
		log_warn("%s: can't be checked", d->path);
	return -1;
}

/* That a file matches where both have zeros, say, proves nothing. And nothing of ours makes
 * a file longer, but for the mark: what follows is the user's. */
int datafile_claim(struct datafile *d, bool force, unsigned workers,
		   void (*progress)(void *arg, uint64_t bytes))
{
	unsigned long long size = (unsigned long long)d->stamp.size, length = d->meta.length;

	d->marked = has_mark(d);
	if (d->empty || d->marked || check_is_blank(d->fd, size))
		return 0;
	if (!d->too_long) {
		if (datafile_check(d, workers, true, progress) < 0)
			return -1;
		if (atomic_load(&d->held->proven) || datafile_missing_bytes(d) == 0)
			return 0;
	}
	if (force && d->too_long)
		log_info("%s: is cut from %llu bytes to %llu, and overwritten", d->path, size, length);
	else if (force)
		log_info("%s: is overwritten, though no part of it belongs to %s", d->path, d->meta.path);
	else if (d->too_long)
		log_warnx("%s: left alone: it has %llu bytes, and %s is for a file of %llu "
			  "(--force cuts it)", d->path, size, d->meta.path, length);
	else
		log_warnx("%s: left alone: no part of it belongs to %s (--force overwrites it)",
			  d->path, d->meta.path);
	return force ? 0 : -1;
}

bool datafile_overlap(const struct datafile files[], size_t count)
{
	struct stat st;

	for (size_t i = 0; i < count; i++) {
		if (fstat(files[i].meta.fd, &st) < 0) {
			log_warn("%s", files[i].meta.path);
			return true;
		}
		for (size_t j = 0; j < count; j++) {
			const struct datafile *data = &files[j];
			if (st.st_ino == data->inode && st.st_dev == data->device) {
				log_warnx("%s: it is a metafile, and can't be a data file", data->path);
				return true;
			}
			if (j < i && files[i].inode == data->inode && files[i].device == data->device) {
				log_warnx("%s: it can't be the data file of two metafiles", data->path);
				return true;
			}
		}
	}
	return false;
}

/* ---- writing ------------------------------------------------------------------ */

/* Whether nobody has written to the file since it was opened. */
static bool is_unwritten(const struct datafile *d)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		return false;
	struct stamp now = stamp_of(&st);
	return stamp_is_unwritten(&now, &d->stamp);
}

static void begin_writing(struct datafile *d)
{
	d->written = true;
	if (atomic_load(&d->held->stamps) % 2 == 1)
		atomic_fetch_add(&d->held->stamps, 1);
}

/* The file is closed: one on another machine gets its time of writing when the last
 * bytes go there. */
static void end_writing(struct datafile *d)
{
	struct stat st;

	if (!d->written || stat(d->path, &st) < 0 || st.st_dev != d->device || st.st_ino != d->inode)
		return;
	struct stamp stamp = stamp_of(&st);
	put_stamp(d->held, &stamp);
}

int datafile_begin_write(struct datafile *d)
{
	bool complete = datafile_missing_bytes(d) == 0;

	if (!d->writable) {
		log_warnx("%s: %llu bytes are missing, and it can't be written", d->path,
			  (unsigned long long)datafile_missing_bytes(d));
		return -1;
	}
	if (lock_data(d, LOCK_EX) < 0)
		return -1;
	if (!is_unwritten(d)) {
		log_warnx("%s: left alone: somebody else has written to it just now", d->path);
		return -1;
	}
	begin_writing(d);
	if (d->marked)
		return datafile_unmark(d, complete);
	if (set_length(d) < 0) {
		log_warn("%s: can't be given its length of %llu bytes", d->path,
			 (unsigned long long)d->meta.length);
		return -1;
	}
	return 0;
}

bool datafile_is_intact(const struct datafile *d)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		log_warn("%s", d->path);
	else if ((uint64_t)st.st_size < d->meta.length)
		log_warnx("%s: was cut by somebody else", d->path);
	else if (st.st_nlink == 0)
		log_warnx("%s: was removed by somebody else", d->path);
	else
		return true;
	return false;
}

/* ---- what others do to it ------------------------------------------------------ */

void datafile_lose(struct datafile *d)
{
	int error = d->meta.error;

	if (atomic_exchange(d->lost, true))
		return;
	if (error == 0)
		log_warnx("%s: was changed by somebody else; it is not served any more", d->path);
	else if (error == ESTALE)
		log_warnx("%s: was changed by somebody else; %s is neither fetched nor served any more",
			  d->meta.path, d->path);
	else
		log_warnx("%s: can't be read: %s; %s is neither fetched nor served any more",
			  d->meta.path, strerror(error), d->path);
}

void datafile_miss(struct datafile *d, int error)
{
	struct stat st;

	if (atomic_exchange(d->missed, true))
		return;
	/* A confined process may not open another one, but see that it is. */
	bool other = error == 0 || (stat(d->path, &st) == 0 && (st.st_dev != d->device || st.st_ino != d->inode));
	if (other)
		log_warnx("%s: is another file than the one that was checked; it is not served", d->path);
	else
		log_warnx("%s: can't be opened: %s; it is not served", d->path, strerror(error));
}

void datafile_damaged(struct datafile *d, uint64_t chunk)
{
	if (!atomic_exchange(d->damaged, true))
		log_warnx("%s: chunk %llu is damaged; such chunks are not served", d->path,
			  (unsigned long long)chunk);
}

int datafile_end_check(struct datafile *d)
{
	if (!is_unwritten(d)) {
		datafile_lose(d);
		return -1;
	}
	return 0;
}

int datafile_close(struct datafile *d)
{
	if (close(d->fd) < 0) {
		int why = errno;
		if (!atomic_load(d->lost))
			log_warnx("%s: what was written to it may be lost: %s; it is not served any more",
				  d->path, strerror(why));
		atomic_store(d->lost, true);
		return -1;
	}
	end_writing(d);
	return 0;
}

void datafile_writer_ended(struct datafile *d)
{
	atomic_store(d->writer_ended, true);
}

enum datafile_look datafile_look(struct datafile *d, int fd)
{
	unsigned stamps = atomic_load(&d->held->stamps);	/* first: else our own last write could be seen */
	struct stamp stamp = d->held->stamp;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_dev != d->device || st.st_ino != d->inode)
		return DATAFILE_OTHER;
	if (metafile_look(&d->meta) < 0)
		return DATAFILE_CHANGED;
	if (stamps % 2 == 0 || atomic_load(&d->held->stamps) != stamps)
		return atomic_load(d->writer_ended) ? DATAFILE_TOUCHED : DATAFILE_SAME;
	struct stamp now = stamp_of(&st);
	if (!stamp_is_unwritten(&now, &stamp))
		return DATAFILE_CHANGED;
	return stamp_is_same(&now, &stamp) ? DATAFILE_SAME : DATAFILE_TOUCHED;
}

/* ---- how much there is ---------------------------------------------------------- */

uint64_t datafile_held_bytes(const struct datafile *d, uint64_t held_chunks)
{
	const struct metafile *m = &d->meta;
	uint64_t bytes = held_chunks * m->chunk_size;

	if (held_chunks > 0 && held_has(d->held, m->chunks - 1))
		bytes -= m->chunk_size - metafile_chunk_length(m, m->chunks - 1);
	return bytes;
}

uint64_t datafile_missing_bytes(const struct datafile *d)
{
	return d->meta.length - datafile_held_bytes(d, held_count(d->held));
}
