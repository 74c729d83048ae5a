/* window.h - windows onto a file: looking at its bytes where the system caches
 * them, without copying them. Where that can't be, they are read. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that can be looked at in one piece, at most; enough for making a window
 * not to count. */
#define WINDOW_SIZE_MAX ((size_t)192 << 10)
#define WINDOW_SIZE_MIN ((size_t)16 << 10)

#define WINDOWS_MAX 16

/* Makes room for that many looks at a time (WINDOWS_MAX at most), in each of that
 * many processes, which together look at no more than a few MiB. Without it there
 * is room for WINDOWS_MAX of WINDOW_SIZE_MAX. What was looked at before is gone. */
void window_setup(size_t at_a_time, unsigned processes);

/* Bytes that can be looked at in one piece. */
size_t window_size(void);

/* Sets whether the file is mapped where it can be, or else read, from now on. A change
 * closes all windows. */
void window_map(bool map);

/* Finds size bytes, window_size() at most, at that offset of the file. They stay
 * until as many other looks as there is room for. NULL with errno if they can't be
 * had: EIO if the file ends before. In a mapping zeros may follow the end. */
const uint8_t *window_look(int fd, uint64_t offset, size_t size);

/* Closes all windows: to be called when no more is looked at, or another file. */
void window_close_all(void);

/* Calls look(arg), and returns what it returns: 0, or an errno. If it comes to
 * bytes that can't be read, since the file was cut or the disk failed, which in a
 * mapping is a SIGBUS, that is the end of it, and EIO is returned. */
int window_try(int (*look)(void *arg), void *arg);

#endif
