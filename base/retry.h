/* retry.h - what fails for want of memory, say, may succeed a moment later. */
#ifndef RETRY_H
#define RETRY_H

#include <stdbool.h>

/* Whether to try again what failed with this errno: after EINTR, at once; after
 * EAGAIN, ENOMEM or ENOBUFS, a few times, for a quarter of a second in all, and this
 * call waits before it returns. *failures is 0 before the first try. errno stays. */
bool retry_after(int error, unsigned *failures);

#endif
