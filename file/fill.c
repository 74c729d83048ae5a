/* fill.c - chunks that come from this machine; used by the fetcher before it asks anybody.
 *
 * A chunk of zeros is known by its hash alone: so much of a disk image is empty that it
 * pays to look. In an older file, the chunks are hashed where they lie, and those that
 * match are copied; after that they are checked in the data file, as all that arrives. */
#include "file/fill.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/format.h"
#include "base/io.h"
#include "base/log.h"
#include "base/retry.h"
#include "file/check.h"
#include "file/copy.h"
#include "file/holes.h"
#include "file/scan.h"

#define ZEROS_MAX (UINT64_C(64) << 20)	/* bytes of a chunk: the hash of so many zeros takes no time */
#define COPY_MAX (UINT64_C(32) << 20)	/* bytes copied before they are checked, unless a chunk has more */

int older_open(struct older *o, const char *path)
{
	struct stat st;

	o->path = path;
	o->fd = retry_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	if (o->fd < 0 || fstat(o->fd, &st) < 0) {
		log_warn("%s", path);
		return -1;
	}
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return 0;
	log_warnx("%s: not a regular file or a block device", path);
	return -1;
}

bool older_overlap(const struct older *o, const struct datafile files[], size_t count)
{
	struct stat old, file;

	for (size_t i = 0; i < count; i++) {
		if (fstat(o->fd, &old) < 0 || fstat(files[i].fd, &file) < 0) {
			log_warn("%s", o->path);
			return true;
		}
		bool is_same_device = S_ISBLK(old.st_mode) && S_ISBLK(file.st_mode) &&
				      old.st_rdev == file.st_rdev;
		if (is_same_device || (old.st_dev == file.st_dev && old.st_ino == file.st_ino)) {
			log_warnx("%s: it is the data file, and nothing can be copied from it", o->path);
			return true;
		}
	}
	return false;
}

/* What was written is verified, and added to d->held. Returns 0, or an errno after a message. */
static int check_written(struct datafile *d, uint64_t first, uint64_t count)
{
	struct run run = {.first = first, .count = count};

	check_runs(&d->meta, d->fd, &run, 1, d->held);
	if (run.metafile_error != 0) {
		d->meta.error = run.metafile_error;
		datafile_give_up(d);
		return run.metafile_error;
	}
	if (run.error != 0) {
		errno = run.error;
		log_warn("%s: was cut by somebody else, or can't be read back", d->path);
		return run.error;
	}
	return datafile_unmark(d, datafile_missing_bytes(d) == 0) < 0 ? EIO : 0;
}

static int say_unwritable(const struct datafile *d, int error)
{
	datafile_say_unwritable(d, error);
	return error;
}

/* ---- zeros ----------------------------------------------------------------------- */

static int write_zeros(struct datafile *d, uint64_t chunk)
{
	static uint8_t zeros[64 << 10];	/* not const: so it takes no room in the program */
	uint64_t offset = metafile_chunk_offset(&d->meta, chunk);
	uint64_t left = metafile_chunk_length(&d->meta, chunk);
	int error = datafile_mark(d);

	while (left > 0 && error == 0) {
		size_t piece = left < sizeof zeros ? (size_t)left : sizeof zeros;
		error = io_write_at(d->fd, zeros, piece, offset);
		offset += piece;
		left -= piece;
	}
	return error != 0 ? say_unwritable(d, error) : check_written(d, chunk, 1);
}

/* 1 if the chunk's hash is that of zeros, 0 if not, -1 if it can't be read. */
static int is_zeros(struct datafile *d, uint64_t chunk)
{
	const uint8_t *hash = metafile_chunk_hash(&d->meta, chunk);

	if (hash == NULL)
		return -1;
	return memcmp(hash, holes_zero_hash(metafile_chunk_length(&d->meta, chunk)), SHA256_HASH_SIZE) == 0;
}

/* The chunk lies in a hole if the file ended before it when it was opened: then that is
 * known without SEEK_HOLE. */
static bool is_hole(const struct datafile *d, struct extent *data, uint64_t chunk)
{
	uint64_t begin = metafile_chunk_offset(&d->meta, chunk);

	if (datafile_is_new_from(d, begin))
		return true;
	holes_find_data(data, d->fd, begin, d->meta.length);
	return data->begin >= begin + metafile_chunk_length(&d->meta, chunk);
}

int fill_zeros(struct datafile *d)
{
	struct extent data = {0};

	if (d->meta.chunk_size > ZEROS_MAX)
		return 0;
	for (uint64_t chunk = 0; chunk < d->meta.chunks; chunk++) {
		int error = 0, zeros = held_has(d->held, chunk) ? 0 : is_zeros(d, chunk);
		if (zeros < 0) {
			error = d->meta.error;
			datafile_give_up(d);
		} else if (zeros > 0 && is_hole(d, &data, chunk)) {
			held_add(d->held, chunk);
		} else if (zeros > 0) {
			error = write_zeros(d, chunk);
			data = (struct extent){0};
		}
		if (error != 0)
			return error;
	}
	return datafile_unmark(d, datafile_missing_bytes(d) == 0) < 0 ? EIO : 0;
}

/* ---- older files ----------------------------------------------------------------- */

/* How many chunks, from the first on, are in the older file and missing in the data file. */
static uint64_t count_wanted(const struct datafile *d, const struct held *there, uint64_t first)
{
	uint64_t most = COPY_MAX / d->meta.chunk_size, count = 0;

	while (count < (most > 0 ? most : 1) && first + count < d->meta.chunks &&
	       held_has(there, first + count) && !held_has(d->held, first + count))
		count++;
	return count;
}

/* Bytes in so many chunks, at least one. */
static uint64_t length_of(const struct metafile *m, uint64_t first, uint64_t count)
{
	uint64_t last = first + count - 1;

	return (count - 1) * m->chunk_size + metafile_chunk_length(m, last);
}

/* Copies these chunks, and checks them. Returns 0; or an errno after a message, and
 * *unreadable tells whether that is the older file's. */
static int copy_chunks(struct datafile *d, const struct older *o, uint64_t first, uint64_t count,
		       bool *unreadable)
{
	uint64_t begin = metafile_chunk_offset(&d->meta, first);
	int read_error = 0, error = datafile_mark(d);

	if (error == 0)
		error = copy_between(o->fd, begin, d->fd, begin, length_of(&d->meta, first, count),
				     &read_error);
	if (error != 0)
		return say_unwritable(d, error);
	*unreadable = read_error != 0;
	if (read_error != 0) {
		errno = read_error;
		log_warn("%s: can't be read to its end; what is missing is fetched", o->path);
		return read_error;
	}
	return check_written(d, first, count);
}

static int copy_all(struct datafile *d, const struct older *o, const struct held *there, uint64_t *copied)
{
	for (uint64_t chunk = 0; chunk < d->meta.chunks; ) {
		uint64_t count = count_wanted(d, there, chunk);
		bool unreadable = false;
		int error = count > 0 ? copy_chunks(d, o, chunk, count, &unreadable) : 0;
		if (error != 0)
			return unreadable ? 0 : error;
		*copied += count > 0 ? length_of(&d->meta, chunk, count) : 0;
		chunk += count > 0 ? count : 1;
	}
	return 0;
}

int fill_from(struct datafile *d, const struct older *o, unsigned workers,
	      void (*progress)(void *arg, uint64_t bytes))
{
	struct scan_plan plan = {.path = o->path, .workers = workers, .progress = progress};
	struct held *there = held_new(d->meta.chunks, 0);
	char bytes[FORMAT_BYTES_SIZE];
	uint64_t next = 0, copied = 0;
	int error = 0;

	if (there == NULL || scan_file(&d->meta, o->fd, there, &plan, &next) < 0) {
		error = d->meta.error;
		if (error != 0)
			datafile_give_up(d);
		else
			log_warn("%s: can't be looked at; what is missing is fetched", o->path);
	} else {
		error = copy_all(d, o, there, &copied);
		if (error == 0)
			log_info("%s: %s of it were copied from %s", d->path,
				 format_bytes((double)copied, bytes), o->path);
	}
	if (there != NULL)
		held_free(there);
	return error;
}
