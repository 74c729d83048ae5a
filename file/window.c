/* window.c - pieces of a file in memory, the one that was used last kept longest; used by
 * lanes.c. They are read, not mapped: on a virtual machine a page that is mapped can cost
 * ten times as much as one that is copied, and what is mapped can vanish, with a SIGBUS. */
#include "file/window.h"

#include <errno.h>

#include "base/io.h"

/* A piece of the file. */
struct window {
	uint8_t bytes[WINDOW_SIZE];
	uint64_t offset;	/* in the file */
	size_t size;		/* 0: there is nothing in the window */
	uint64_t used;		/* number of the look that used it last */
};

static struct window windows[WINDOWS_MAX];
static uint64_t looks;		/* calls of window_look so far */

void window_close_all(void)
{
	for (size_t i = 0; i < WINDOWS_MAX; i++)
		windows[i].size = 0;
}

/* Reads a window's worth of bytes from that offset on, as far as the file goes. 0, or an
 * errno if there are not `size` of them. */
static int open_window(struct window *w, int fd, uint64_t offset, size_t size)
{
	ssize_t n = io_read_at(fd, w->bytes, sizeof w->bytes, offset);

	if (n < 0)	/* maybe only what lies behind is unreadable */
		n = io_read_at(fd, w->bytes, size, offset);
	w->offset = offset;
	w->size = n < 0 ? 0 : (size_t)n;
	return n < 0 ? errno : w->size < size ? EIO : 0;
}

const uint8_t *window_look(int fd, uint64_t offset, size_t size)
{
	struct window *oldest = &windows[0];

	looks++;
	for (size_t i = 0; i < WINDOWS_MAX; i++) {
		struct window *w = &windows[i];
		if (offset >= w->offset && offset + size <= w->offset + w->size) {
			w->used = looks;
			return w->bytes + (offset - w->offset);
		}
		if (w->used < oldest->used)
			oldest = w;
	}
	int error = open_window(oldest, fd, offset, size);
	if (error != 0) {
		errno = error;
		return NULL;
	}
	oldest->used = looks;
	return oldest->bytes;
}
