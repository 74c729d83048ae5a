/* stamp.c - taking and comparing stamps. They have nanoseconds, but the clock of a file
 * system may stand still for some milliseconds: a write within that time goes unnoticed if
 * it leaves the size as it was. */
#include "file/stamp.h"

#ifdef __APPLE__
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

struct stamp stamp_of(const struct stat *st)
{
	return (struct stamp){
		.size = st->st_size,
		.written_s = st->st_mtim.tv_sec, .written_ns = st->st_mtim.tv_nsec,
		.changed_s = st->st_ctim.tv_sec, .changed_ns = st->st_ctim.tv_nsec,
	};
}

bool stamp_is_unwritten(const struct stamp *a, const struct stamp *b)
{
	return a->size == b->size && a->written_s == b->written_s && a->written_ns == b->written_ns;
}

bool stamp_is_same(const struct stamp *a, const struct stamp *b)
{
	return stamp_is_unwritten(a, b) && a->changed_s == b->changed_s && a->changed_ns == b->changed_ns;
}
