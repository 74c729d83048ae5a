/* sync.c - fsync(2) of a file and of its folder; used by mkcascade, and with --fsync by the
 * fetcher. */
#include "file/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/retry.h"

int sync_file(int fd)
{
	int result;

	while ((result = fsync(fd)) < 0 && errno == EINTR)
		;
	return result;
}

int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[4096];
	int n = snprintf(folder, sizeof folder, "%.*s.", slash == NULL ? 0 : (int)(slash - path) + 1, path);

	if (n < 0 || (size_t)n >= sizeof folder) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = retry_open(folder, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return errno == EACCES ? 0 : -1;
	int error = sync_file(fd) < 0 ? errno : 0;
	close(fd);	/* it was only read */
	errno = error;
	return error == 0 || error == EINVAL ? 0 : -1;
}
