/* wait.h - waiting for one descriptor, or for time to pass. */
#ifndef WAIT_H
#define WAIT_H

#include <stdint.h>

/* Waits until fd is ready for these events of poll(2), or has failed. Returns 0; or -1
 * with errno, which is ETIMEDOUT after the deadline (as of clock_ms). */
int wait_ready(int fd, short events, int64_t deadline_ms);

/* Waits so many milliseconds, fewer than 1000, or until a signal was handled. */
void wait_ms(unsigned ms);

/* Reads and drops everything that fd, a non-blocking pipe or socket, has: for bytes
 * that only wake a process. */
void wait_drain(int fd);

#endif
