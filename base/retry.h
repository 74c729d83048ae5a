/* retry.h - trying again what has failed because the system is short of something. */
#ifndef RETRY_H
#define RETRY_H

#include <stdbool.h>
#include <sys/types.h>

/* Returns whether to try again what has failed with this errno: after EINTR, at once;
 * after EAGAIN, ENOMEM or ENOBUFS, a few times, for a quarter of a second in all. Then
 * this call waits before it returns. *failures is 0 before the first try. errno is
 * kept. */
bool retry_after(int error, unsigned *failures);

/* open(2), tried again in this way. A signal can interrupt it on slow file systems and on
 * network file systems. */
int retry_open(const char *path, int flags, mode_t mode);

#endif
