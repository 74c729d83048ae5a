/* window.c - mapping parts of a file, and surviving SIGBUS; used by lanes.c. What it buys
 * is said there. With PORTABLE nothing calls it, and no program contains it. */
#include "file/window.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"

/* Bytes of the file that all processes look at together: mapped pages count as memory of
 * the process that maps them. */
#define ALL_WINDOWS_SIZE ((size_t)6 << 20)

/* A part of the file that is mapped or read. */
struct window {
	uint8_t *bytes;
	uint64_t offset;	/* in the file */
	size_t size;		/* 0: there is nothing in the window */
	bool mapped;
	uint64_t used;		/* number of the look that used it last */
};

static struct window windows[WINDOWS_MAX];
static size_t windows_used = WINDOWS_MAX, bytes_per_window = WINDOW_SIZE_MAX;
static uint64_t looks;		/* calls of window_look so far */

#ifdef __linux__
#define CAN_MAP true
#else
#define CAN_MAP false	/* elsewhere a mapping may not show at once what was written */
#endif

static bool is_mapping = CAN_MAP;

static void close_window(struct window *w)
{
	if (w->mapped)
		munmap(w->bytes, w->size);
	w->size = 0;
	w->mapped = false;
}

void window_close_all(void)
{
	for (size_t i = 0; i < WINDOWS_MAX; i++)
		close_window(&windows[i]);
}

void window_setup(size_t windows_wanted, unsigned processes)
{
	size_t size = ALL_WINDOWS_SIZE / processes / windows_wanted;

	window_close_all();
	windows_used = windows_wanted;
	bytes_per_window = size < WINDOW_SIZE_MIN ? WINDOW_SIZE_MIN :
			   size > WINDOW_SIZE_MAX ? WINDOW_SIZE_MAX : size - size % WINDOW_SIZE_MIN;
}

size_t window_size(void)
{
	return bytes_per_window;
}

void window_map(bool map)
{
	map = map && CAN_MAP;
	if (map != is_mapping)
		window_close_all();
	is_mapping = map;
}

/* Reads into the window's own buffer, as far as the file goes. 0, or an errno. */
static int read_window(struct window *w, int fd, size_t size)
{
	static uint8_t buffers[WINDOWS_MAX][WINDOW_SIZE_MAX];

	w->bytes = buffers[w - windows];
	ssize_t n = io_read_at(fd, w->bytes, bytes_per_window, w->offset);
	if (n < 0)
		return errno;
	w->size = (size_t)n;
	return w->size < size ? EIO : 0;
}

/* Shows in the window size bytes from that offset on, and maybe more. 0, or an errno. */
static int open_window(struct window *w, int fd, uint64_t offset, size_t size)
{
	static size_t page_size;

	close_window(w);
	w->offset = offset;
	if (!is_mapping)
		return read_window(w, fd, size);
	if (page_size == 0)
		page_size = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t begin = offset - offset % page_size;
	void *map = mmap(NULL, bytes_per_window + page_size, PROT_READ, MAP_SHARED, fd, (off_t)begin);
	if (map == MAP_FAILED)
		return read_window(w, fd, size);
	w->bytes = map;
	w->offset = begin;
	w->size = bytes_per_window + page_size;
	w->mapped = true;
	return 0;
}

const uint8_t *window_look(int fd, uint64_t offset, size_t size)
{
	struct window *oldest = &windows[0];

	looks++;
	for (size_t i = 0; i < windows_used; i++) {
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
		close_window(oldest);
		errno = error;
		return NULL;
	}
	oldest->used = looks;
	return oldest->bytes + (offset - oldest->offset);
}

/* ---- SIGBUS ---------------------------------------------------------------------- */

static sigjmp_buf unreadable;		/* where to go on after a SIGBUS, */
static volatile sig_atomic_t trying;	/* inside window_try */

static void on_bus_error(int sig)
{
	if (trying)
		siglongjmp(unreadable, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

int window_try(int (*look)(void *arg), void *arg)
{
	/* The jump doesn't restore the signal mask, so SIGBUS isn't added to it. */
	struct sigaction action = {.sa_handler = on_bus_error, .sa_flags = SA_NODEFER};
	static bool ready;
	int error = EIO;

	if (!ready) {
		sigemptyset(&action.sa_mask);
		sigaction(SIGBUS, &action, NULL);
		ready = true;
	}
	if (sigsetjmp(unreadable, 0) == 0) {
		trying = 1;
		error = look(arg);
	}
	trying = 0;
	return error;
}
