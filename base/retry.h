/* retry.h - what fails for want of memory, say, may succeed a moment later. */
#ifndef RETRY_H
#define RETRY_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether to try again what failed with this errno: after EINTR, at once; after
 * EAGAIN, ENOMEM or ENOBUFS, a few times, for a quarter of a second in all, and this
 * call waits before it returns. *failures is 0 before the first try. errno stays. */
bool retry_after(int error, unsigned *failures);

/* open(2), tried again so. On slow file systems and on ones over a network a signal can
 * break it off. */
int retry_open(const char *path, int flags, mode_t mode);

#endif
