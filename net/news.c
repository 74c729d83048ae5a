/* news.c - the sockets between the fetcher and the serving parent. */
#include "net/news.h"

#include <fcntl.h>
#include <sys/socket.h>

int news_open(int *parents, int *fetchers)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) < 0)
		return -1;
	*parents = fds[0];
	*fetchers = fds[1];
	return fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0 ? -1 : 0;
}
