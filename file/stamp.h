/* stamp.h - how long a file is and when it was written to: whether its bytes can still be
 * those that were read. */
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

/* The stamp of the file that stat(2) has described. */
struct stamp stamp_of(const struct stat *st);

/* Whether nobody has written to the file between the two stamps, as far as size and mtime
 * tell. (A program may set the mtime back: only stamp_is_same notices that.) */
bool stamp_is_unwritten(const struct stamp *a, const struct stamp *b);

/* Whether, besides, its mode, links and times have not been changed. */
bool stamp_is_same(const struct stamp *a, const struct stamp *b);

#endif
