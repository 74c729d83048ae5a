/* wait.h - waiting for one descriptor, or for time to pass. */
#ifndef WAIT_H
#define WAIT_H

#include <stdint.h>

/* Waits until fd is ready for the events of poll(2), or has failed. Returns 0; or
 * -1 with errno, ETIMEDOUT when the time (as of clock_ms) has passed. */
int wait_ready(int fd, short events, int64_t deadline_ms);

/* Waits so many milliseconds, fewer than 1000, or until a signal was handled. */
void wait_ms(unsigned ms);

/* Reads all that has come through fd, a non-blocking pipe or socket, and forgets it:
 * for bytes that only wake the process. */
void wait_drain(int fd);

#endif
