/* datafile.c - the rules that keep a user's file from harm; run at start-up, and by the
 * fetcher and the serving children.
 *
 * - A file is opened without changing it, and only if it is a regular file or a block device.
 * - A device is opened for writing only with --force, and if nobody has mounted or uses it.
 * - While one process downloads it, no second one does (locks).
 * - It is overwritten only if it is ours or nobody's, or by --force (datafile_claim).
 * - If somebody else has written to it since it was opened, it is left alone (stamps).
 * - Before the first byte is written, it is marked as ours (marks).
 * - If it is cut or removed during the download, nothing more is written to it.
 * - Once somebody else has written to it, it is not served (stamps). */
#include "file/datafile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/format.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/retry.h"
#include "file/holes.h"
#include "file/scan.h"
#include "file/sync.h"

/* ---- flags in shared memory ------------------------------------------------------ */

#define FLAGS 4		/* of a data file */

/* FLAGS new flags, all false, that this process and all that it forks later can set. Many
 * lie in one page, since each mapping makes every fork slower. NULL with errno. */
static atomic_bool *new_flags(void)
{
	enum { FLAGS_PER_PAGE = 4096 / (FLAGS * sizeof(atomic_bool)) * FLAGS };
	static atomic_bool *flags;
	static size_t flags_used = FLAGS_PER_PAGE;

	if (flags_used == FLAGS_PER_PAGE) {
		flags = memory_shared(FLAGS_PER_PAGE * sizeof *flags);
		if (flags == NULL)
			return NULL;
		flags_used = 0;
	}
	flags_used += FLAGS;
	return flags + flags_used - FLAGS;
}

void datafile_map_read_only(struct datafile *d)
{
	d->held = held_read_only(d->held);
	d->shared = held_owner_memory(d->held);
}

void datafile_set_checked(struct datafile *d)
{
	atomic_store(&d->shared->checked, true);
}

bool datafile_is_checked(const struct datafile *d)
{
	return atomic_load(&d->shared->checked);
}

/* ---- locks ------------------------------------------------------------------------ */

/* All processes that have the file open share the lock (LOCK_SH); a fetcher that writes
 * to it has the lock alone (LOCK_EX), until it ends. 0, or -1 after a message. */
static int lock(const struct datafile *d, int operation)
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

/* ---- stamps ----------------------------------------------------------------------- */

/* Whether no process of ours writes to the file in that phase: then it has to look as its
 * stamp says. */
static bool stamp_counts(unsigned phase)
{
	return phase % 2 == 1;
}

/* No process of ours writes to the file from here on, so any write is noticed. */
static void put_stamp(struct datafile *d, const struct stat *st)
{
	d->shared->stamp = stamp_of(st);
	atomic_fetch_add(&d->shared->phase, 1);
}

/* This process writes to the file from here on, so the stamp says nothing. */
static void drop_stamp(struct datafile *d)
{
	d->written = true;
	atomic_fetch_add(&d->shared->phase, 1);
}

/* 1 if nobody has written to the file since it was opened, 0 if somebody has; -1 with errno. */
static int is_as_opened(const struct datafile *d)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		return -1;
	struct stamp now = stamp_of(&st);
	return stamp_is_unwritten(&now, &d->stamp);
}

static bool is_this_file(const struct datafile *d, const struct stat *st)
{
	return st->st_dev == d->device && st->st_ino == d->inode;
}

/* ---- marks ------------------------------------------------------------------------ */

/* Bytes of ours in a file are known by their hashes, once a chunk is whole. Before that,
 * nothing tells a download that was killed from a file of the user's; and chunks may be
 * large, and arrive many at a time. So until a chunk is verified that is proof (check.h),
 * the file is longer by a mark, which names the metafile. The mark is part of the file:
 * it can't be lost or left behind as one in another file can, and it works where extended
 * attributes don't. It lies within one page, so that no kill leaves half of it. */
static const char mark_text[32] = "cascade: nothing verified yet";

#define MARK_SIZE 64	/* bytes: the text, and the cascade hash */

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
	       io_read_at(d->fd, found, MARK_SIZE, offset) == MARK_SIZE &&
	       memcmp(found, mark, MARK_SIZE) == 0;
}

int datafile_mark(struct datafile *d)
{
	uint8_t mark[MARK_SIZE];

	if (d->is_device || d->temporary || d->marked || atomic_load(&d->held->proven))
		return 0;
	make_mark(&d->meta, mark);
	int error = io_write_at(d->fd, mark, MARK_SIZE, mark_offset(&d->meta));
	/* A file that can't be longer does without, and is resumed by --force. */
	if (error != 0 && error != EFBIG && error != EINVAL)
		return error;
	d->marked = true;
	return d->sync && error == 0 && (sync_file(d->fd) < 0 || sync_folder(d->path) < 0) ? errno : 0;
}

/* Gives the file its final length. 0, or -1 with errno. */
static int set_length(const struct datafile *d)
{
	unsigned failures = 0;
	int result;

	if (d->is_device || d->temporary)
		return 0;
	while ((result = ftruncate(d->fd, (off_t)d->meta.length)) < 0 && retry_after(errno, &failures))
		;
	return result;
}

int datafile_unmark(struct datafile *d, bool complete)
{
	bool needed = !complete && !atomic_load(&d->held->proven);

	if (!d->marked || needed)
		return 0;
	/* What proves the file to be ours is on the disk before the mark goes. */
	if (d->sync && sync_file(d->fd) < 0) {
		log_warn("%s: can't be put onto the disk", d->path);
		return -1;
	}
	if (set_length(d) < 0) {
		log_warn("%s: can't be given its length", d->path);
		return -1;
	}
	d->marked = false;
	return 0;
}

/* ---- opening ---------------------------------------------------------------------- */

/* Opens the file for writing if that can be, else for reading: a complete file on a
 * read-only disk can be served. O_NONBLOCK is for FIFOs and devices, which are refused
 * later. 0, or -1 with errno. */
static int open_file(struct datafile *d)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat st;

	d->is_device = stat(d->path, &st) == 0 && S_ISBLK(st.st_mode);
	d->not_writable = d->is_device && !d->force ? EPERM : 0;
	if (d->not_writable != 0)
		return (d->fd = retry_open(d->path, O_RDONLY | flags, 0)) < 0 ? -1 : 0;
	/* Of a device, O_EXCL means that nobody else has mounted it, or opened it so. */
	d->fd = retry_open(d->path, O_RDWR | (d->is_device ? O_EXCL : O_CREAT) | flags, 0666);
	if (d->fd >= 0)
		return 0;
	if (errno != EACCES && errno != EROFS && errno != EPERM && errno != ETXTBSY)
		return -1;
	d->not_writable = errno;
	d->fd = retry_open(d->path, O_RDONLY | flags, 0);
	if (d->fd >= 0)
		return 0;
	errno = d->not_writable;
	return -1;
}

/* Puts down how the file looks. */
static void describe(struct datafile *d, const struct stat *st)
{
	d->device = st->st_dev;
	d->inode = st->st_ino;
	d->stamp = stamp_of(st);
	d->empty = st->st_size == 0 && !d->is_device;
	d->too_long = (uint64_t)st->st_size > d->meta.length && !d->is_device;
	put_stamp(d, st);
}

/* 0, or -1 after a message: the device has less room than the file needs. */
static int check_device_size(const struct datafile *d)
{
	uint64_t size;

	if (io_file_size(d->fd, &size) < 0) {
		log_warn("%s", d->path);
		return -1;
	}
	if (size >= d->meta.length)
		return 0;
	log_warnx("%s: left alone: it has %llu bytes, and %s is for %llu", d->path, (unsigned long long)size,
		  d->meta.path, (unsigned long long)d->meta.length);
	return -1;
}

/* Opens the metafile, and makes what the processes share. 0, or -1 after a message. */
static int prepare(struct datafile *d, const char *metafile_path, const char *path)
{
	const char *why;

	if (metafile_open(&d->meta, metafile_path, &why) < 0) {
		log_warnx("%s: %s", metafile_path, why);
		return -1;
	}
	d->path = d->place = path != NULL ? path : metafile_data_path(metafile_path);
	if (d->path == NULL)
		d->meta.error = errno;	/* no memory: that doesn't make it bad */
	d->held = d->path != NULL ? held_new(d->meta.chunks, sizeof *d->shared) : NULL;
	atomic_bool *flags = d->held != NULL ? new_flags() : NULL;
	if (flags == NULL) {
		log_warn("%s", metafile_path);
		return -1;
	}
	d->lost = &flags[0];
	d->missed = &flags[1];
	d->damaged = &flags[2];
	d->writer_ended = &flags[3];
	d->shared = held_owner_memory(d->held);
	return 0;
}

int datafile_open(struct datafile *d, const char *metafile_path, const char *path)
{
	struct stat st;

	if (prepare(d, metafile_path, path) < 0)
		return -1;
	if (open_file(d) < 0 || fstat(d->fd, &st) < 0) {
		if (d->is_device && errno == EBUSY)
			log_warnx("%s: left alone: it is mounted, or in use", d->path);
		else
			log_warn("%s", d->path);
		return -1;
	}
	if (d->is_device ? !S_ISBLK(st.st_mode) : !S_ISREG(st.st_mode)) {
		log_warnx("%s: not a regular file or a block device", d->path);
		return -1;
	}
	describe(d, &st);
	return d->is_device ? check_device_size(d) : lock(d, LOCK_SH);
}

int datafile_open_temporary(struct datafile *d, const char *metafile_path, int fd, const char *name,
			    const char *place)
{
	struct stat st;

	if (prepare(d, metafile_path, name) < 0)
		return -1;
	d->temporary = true;
	d->place = place;
	d->fd = fd;
	if (fstat(fd, &st) < 0) {
		log_warn("%s", place);
		return -1;
	}
	describe(d, &st);
	return 0;
}

bool datafile_metafile_is_bad(const struct datafile *d)
{
	return d->path == NULL && d->meta.error == 0;
}

bool datafile_overlap(const struct datafile files[], size_t count)
{
	struct stat metafile;

	for (size_t i = 0; i < count; i++) {
		if (fstat(files[i].meta.fd, &metafile) < 0) {
			log_warn("%s", files[i].meta.path);
			return true;
		}
		for (size_t j = 0; j < count; j++) {
			const struct datafile *d = &files[j];
			if (is_this_file(d, &metafile)) {
				log_warnx("%s: it is a metafile, and can't be a data file", d->path);
				return true;
			}
			if (j < i && files[i].inode == d->inode && files[i].device == d->device) {
				log_warnx("%s: it can't be the data file of two metafiles", d->path);
				return true;
			}
		}
	}
	return false;
}

/* ---- whose file it is ------------------------------------------------------------- */

int datafile_check(struct datafile *d, unsigned workers, bool until_proven,
		   void (*progress)(void *arg, uint64_t bytes))
{
	struct scan_plan plan = {.path = d->path, .workers = workers, .until_proven = until_proven,
		.progress = progress};

	if (scan_file(&d->meta, d->fd, d->held, &plan, &d->checked) == 0)
		return 0;
	if (d->meta.error != 0)
		datafile_give_up(d);
	else
		log_warn("%s: can't be checked", d->path);
	return -1;
}

/* Says what becomes of a file that is not known to be ours. */
static void say_not_ours(const struct datafile *d, bool force)
{
	unsigned long long size = (unsigned long long)d->stamp.size, length = d->meta.length;

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
}

/* A match where both have zeros, say, proves nothing. And nothing of ours makes a file longer,
 * but for the mark: what follows is the user's. */
int datafile_claim(struct datafile *d, bool force, unsigned workers,
		   void (*progress)(void *arg, uint64_t bytes))
{
	if (d->is_device) {
		if (d->not_writable == 0)
			log_info("%s: what is missing is written to this device", d->path);
		return 0;
	}
	d->marked = has_mark(d);
	if (d->empty || d->marked || holes_file_is_zeros(d->fd, (uint64_t)d->stamp.size))
		return 0;
	if (!d->too_long) {
		if (datafile_check(d, workers, true, progress) < 0)
			return -1;
		if (atomic_load(&d->held->proven) || datafile_missing_bytes(d) == 0)
			return 0;
	}
	say_not_ours(d, force);
	return force ? 0 : -1;
}

int datafile_end_check(struct datafile *d)
{
	int unwritten = is_as_opened(d);

	if (unwritten == 1)
		return 0;
	if (unwritten == 0)
		datafile_give_up(d);
	else if (!atomic_exchange(d->lost, true))
		log_warn("%s: can't be looked at; it is not served any more", d->path);
	return -1;
}

/* ---- writing ---------------------------------------------------------------------- */

int datafile_begin_write(struct datafile *d)
{
	uint64_t missing = datafile_missing_bytes(d);

	if (d->is_device && d->not_writable == EPERM) {
		log_warnx("%s: left alone: %llu bytes are missing, and only --force writes to a device",
			  d->path, (unsigned long long)missing);
		return -1;
	}
	if (d->not_writable != 0) {
		errno = d->not_writable;
		log_warn("%s: %llu bytes are missing, and it can't be written", d->path,
			 (unsigned long long)missing);
		return -1;
	}
	if (!d->is_device && !d->temporary && lock(d, LOCK_EX) < 0)
		return -1;
	int unwritten = is_as_opened(d);
	if (unwritten < 0) {
		log_warn("%s", d->path);
		return -1;
	}
	if (unwritten == 0) {
		log_warnx("%s: left alone: somebody else has written to it just now", d->path);
		return -1;
	}
	drop_stamp(d);
	if (d->marked)
		return datafile_unmark(d, missing == 0);
	if (set_length(d) < 0) {
		log_warn("%s: can't be given its length of %llu bytes", d->path,
			 (unsigned long long)d->meta.length);
		return -1;
	}
	return 0;
}

bool datafile_is_new_from(const struct datafile *d, uint64_t offset)
{
	return !d->is_device && (uint64_t)d->stamp.size <= offset;
}

bool datafile_is_intact(const struct datafile *d)
{
	struct stat st;

	if (fstat(d->fd, &st) < 0)
		log_warn("%s", d->path);
	else if (d->is_device || d->temporary)
		return true;
	else if ((uint64_t)st.st_size < d->meta.length)
		log_warnx("%s: was cut by somebody else", d->path);
	else if (st.st_nlink == 0)
		log_warnx("%s: was removed by somebody else", d->path);
	else
		return true;
	return false;
}

bool datafile_is_to_sync(const struct datafile *d)
{
	return !d->was_synced && (d->sync || (d->is_device && d->written));
}

int datafile_sync(const struct datafile *d)
{
	if (!datafile_is_to_sync(d))
		return 0;
	return sync_file(d->fd) < 0 || (!d->is_device && sync_folder(d->path) < 0) ? -1 : 0;
}

void datafile_set_synced(struct datafile *d, int error)
{
	d->was_synced = true;
	d->sync_error = error;
}

/* The stamp is taken after close(2): a file on another machine gets its time of writing
 * when the last bytes go there. */
int datafile_close(struct datafile *d)
{
	int why = datafile_sync(d) < 0 ? errno : d->sync_error;
	struct stat st;

	/* A checker or a query to the tracker may have a copy of it, and keep the lock for a while. */
	(void)flock(d->fd, LOCK_UN);
	if (close(d->fd) < 0)
		why = errno;
	if (why != 0) {
		if (!atomic_exchange(d->lost, true))
			log_warnx("%s: what was written to it may be lost: %s; it is not served any more",
				  d->path, strerror(why));
		return -1;
	}
	if (d->written && stat(d->path, &st) == 0 && is_this_file(d, &st))
		put_stamp(d, &st);
	return 0;
}

/* ---- what others do to it --------------------------------------------------------- */

void datafile_give_up(struct datafile *d)
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

void datafile_say_missing(struct datafile *d, int error)
{
	struct stat st;

	if (atomic_exchange(d->missed, true))
		return;
	/* A confined process can't open another file, but see that it is another. */
	bool is_other = error == 0 || (stat(d->path, &st) == 0 && !is_this_file(d, &st));
	if (is_other)
		log_warnx("%s: is another file than the one that was checked; it is not served", d->path);
	else
		log_warnx("%s: can't be opened: %s; it is not served", d->path, strerror(error));
}

void datafile_say_damaged(struct datafile *d, uint64_t chunk)
{
	if (!atomic_exchange(d->damaged, true))
		log_warnx("%s: chunk %llu is damaged; such chunks are not served", d->path,
			  (unsigned long long)chunk);
}

void datafile_writer_ended(struct datafile *d)
{
	atomic_store(d->writer_ended, true);
}

enum datafile_look datafile_look(struct datafile *d, int fd)
{
	/* The phase first: else the last write of our own could be taken for another's. */
	unsigned phase = atomic_load(&d->shared->phase);
	struct stamp stamp = d->shared->stamp;
	struct stat st;

	if (fstat(fd, &st) < 0 || !is_this_file(d, &st))
		return DATAFILE_OTHER;
	if (metafile_look(&d->meta) < 0)
		return DATAFILE_CHANGED;
	if (!stamp_counts(phase) || atomic_load(&d->shared->phase) != phase)
		return atomic_load(d->writer_ended) ? DATAFILE_TOUCHED : DATAFILE_SAME;
	struct stamp now = stamp_of(&st);
	if (!stamp_is_unwritten(&now, &stamp))
		return DATAFILE_CHANGED;
	return stamp_is_same(&now, &stamp) ? DATAFILE_SAME : DATAFILE_TOUCHED;
}

/* ---- how much there is ------------------------------------------------------------ */

void datafile_say_unwritable(const struct datafile *d, int error)
{
	char missing[FORMAT_BYTES_SIZE];
	uint64_t bytes = datafile_missing_bytes(d);

	errno = error;
	log_warn("%s: can't be written (%s, %llu bytes, still to come; %s)", d->place,
		 format_bytes((double)bytes, missing), (unsigned long long)bytes,
		 d->temporary ? "nothing is kept" : "what is verified is kept");
}

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
