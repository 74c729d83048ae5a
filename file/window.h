/* window.h - looking at the bytes of a file, a piece here and a piece there. Each process
 * has its own windows, onto one file at a time. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that a window shows: so few that those of all windows stay in the CPU's cache
 * between reading and hashing, so many that read(2) takes little time beside hashing. */
#define WINDOW_SIZE ((size_t)32 << 10)

#define WINDOWS_MAX 16

/* Finds size bytes, WINDOW_SIZE at most, at that offset of the file, which are read if no
 * window shows them. Returns them, in memory of the window, valid for as many further
 * calls as there are windows less one. NULL with errno if they can't be had: EIO if the
 * file ends before. */
const uint8_t *window_look(int fd, uint64_t offset, size_t size);

/* Closes all windows: to be called when no more is looked at, and before the file may
 * change or another one is looked at. */
void window_close_all(void);

#endif
