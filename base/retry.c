/* retry.c - trying again, where a single failure must not end a download. */
#include "base/retry.h"

#include <errno.h>
#include <fcntl.h>

#include "base/wait.h"

#define TRIES 6
#define FIRST_WAIT_MS 4u	/* doubled each time */

bool retry_after(int error, unsigned *failures)
{
	if (error == EINTR)
		return true;
	if ((error != EAGAIN && error != ENOMEM && error != ENOBUFS) || *failures == TRIES)
		return false;
	wait_ms(FIRST_WAIT_MS << (*failures)++);
	errno = error;
	return true;
}

int retry_open(const char *path, int flags, mode_t mode)
{
	unsigned failures = 0;
	int fd;

	while ((fd = open(path, flags, mode)) < 0 && retry_after(errno, &failures))
		;
	return fd;
}
