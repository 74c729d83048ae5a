/* datafile.c - opening data files with care; run at start-up, and by the
 * fetcher before it writes. */
#include "file/datafile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file/check.h"
#include "base/log.h"

/* Opens it for writing if that can be, else for reading alone: a complete file
 * on a read-only disk can be served. O_NONBLOCK is for what is no file. */
static int open_data(struct datafile *d)
{
	const int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	d->writable = true;
	d->fd = open(d->path, O_RDWR | O_CREAT | flags, 0666);
	if (d->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM || errno == ETXTBSY)) {
		int why = errno;
		d->writable = false;
		d->fd = open(d->path, O_RDONLY | flags);
		if (d->fd < 0)
			errno = why;
	}
	return d->fd;
}

/* Who looks at the file shares the lock with others; a fetcher that writes has
 * it alone, until it ends. */
static int lock_data(struct datafile *d, int operation)
{
	if (flock(d->fd, operation | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		log_warnx("%s: another process is downloading it", d->path);
	else
		log_warn("%s: can't be locked", d->path);
	return -1;
}

static bool is_acceptable(struct datafile *d, uint64_t size)
{
	if (size > d->meta.length) {
		log_warnx("%s: left alone: it has %llu bytes, and %s is for a file of %llu "
			  "(--force cuts it)", d->path, (unsigned long long)size, d->meta.path,
			  (unsigned long long)d->meta.length);
		return false;
	}
	if (size > 0 && size < d->meta.length && !check_any_match(&d->meta, d->fd, size)) {
		log_warnx("%s: left alone: none of its chunks is one of %s (--force overwrites it)",
			  d->path, d->meta.path);
		return false;
	}
	return true;
}

static int open_checked(struct datafile *d, bool force)
{
	struct stat st;

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
	d->size = st.st_size;
	d->empty = st.st_size == 0;
	if (lock_data(d, LOCK_SH) < 0)
		return -1;
	d->too_long = (uint64_t)st.st_size > d->meta.length;
	return force || is_acceptable(d, (uint64_t)st.st_size) ? 0 : -1;
}

int datafile_open(struct datafile *d, const char *metafile_path, const char *path, bool force)
{
	const char *why;

	if (metafile_open(&d->meta, metafile_path, &why) < 0) {
		log_warnx("%s: %s", metafile_path, why);
		return -1;
	}
	d->path = path != NULL ? path : metafile_data_path(metafile_path);
	d->held = d->path != NULL ? held_new(d->meta.chunks) : NULL;
	if (d->held == NULL) {
		log_warn("%s", metafile_path);
		return -1;
	}
	return open_checked(d, force);
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

int datafile_begin_write(struct datafile *d)
{
	struct stat st;

	if (!d->writable) {
		log_warnx("%s: %llu bytes are missing, and it can't be written", d->path,
			  (unsigned long long)datafile_missing_bytes(d));
		return -1;
	}
	if (lock_data(d, LOCK_EX) < 0)
		return -1;
	if (fstat(d->fd, &st) < 0 || st.st_size != d->size) {
		log_warnx("%s: left alone: somebody else has written to it just now", d->path);
		return -1;
	}
	if (ftruncate(d->fd, (off_t)d->meta.length) < 0) {
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
