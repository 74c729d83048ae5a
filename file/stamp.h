/* stamp.h - how long a file is and when it was written to: whether its bytes can
 * still be those that were read. */
#ifndef STAMP_H
#define STAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct stamp {
	int64_t size;		/* bytes */
	int64_t written_s, written_ns;	/* mtime: what write(2) and touch(1) set */
	int64_t changed_s, changed_ns;	/* ctime: what chmod(2), link(2) and utimes(2) set, too */
};

struct stamp stamp_of(const struct stat *st);

/* Whether nobody has written to the file in between, as far as size and mtime
 * tell. Who sets the mtime back is noticed by stamp_is_same alone. */
bool stamp_is_unwritten(const struct stamp *a, const struct stamp *b);

/* The same, and neither have its mode, links and times been changed. */
bool stamp_is_same(const struct stamp *a, const struct stamp *b);

#endif
