/* window.h - windows onto a file: looking at its bytes where the system caches them,
 * without copying them. Where that can't be, they are read. Each process has its own
 * windows, onto one file at a time. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a window, at most and at least: so many that opening it takes little time
 * compared with hashing what is in it. */
#define WINDOW_SIZE_MAX ((size_t)192 << 10)
#define WINDOW_SIZE_MIN ((size_t)16 << 10)

#define WINDOWS_MAX 16

/* Sets how many windows there are, WINDOWS_MAX at most, and makes them so small that
 * so many processes together look at no more than a few MiB. Without this call there
 * are WINDOWS_MAX of WINDOW_SIZE_MAX. Closes all windows. */
void window_setup(size_t windows_wanted, unsigned processes);

/* Bytes that can be looked at in one piece. */
size_t window_size(void);

/* Sets whether the file is mapped where it can be, or else read, from now on. A change
 * closes all windows. */
void window_map(bool map);

/* Finds size bytes, window_size() at most, at that offset of the file. Returns them, in
 * memory of the window, valid for as many further calls as there are windows less one.
 * NULL with errno if they can't be had: EIO if the file ends before. In a mapping zeros
 * may follow the end of the file, up to the end of its last page. */
const uint8_t *window_look(int fd, uint64_t offset, size_t size);

/* Closes all windows: to be called when no more is looked at, and before another file
 * is. */
void window_close_all(void);

/* Calls look(arg), and returns what that returns: 0, or an errno. If it touches bytes
 * that can't be read, because the file was cut or the disk failed, which in a mapping is
 * a SIGBUS, it ends there, and EIO is returned. Takes over the SIGBUS of this process. */
int window_try(int (*look)(void *arg), void *arg);

#endif
