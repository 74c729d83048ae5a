/* dial.c - the sockets of connection.h: connecting and sending; run by the fetcher. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fetch/connection.h"

int connection_open(struct connection *c, struct address to, int64_t now_ms)
{
	struct sockaddr_in sa = address_to_sockaddr(to);
	int on = 1;

	connection_begin(c, socket(AF_INET, SOCK_STREAM, 0), now_ms);
	if (c->fd < 0 || fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
		goto failed;
	/* A small request must not wait until more is to be sent. If this fails, it comes late. */
	(void)!setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	c->connecting = connect(c->fd, (struct sockaddr *)&sa, sizeof sa) < 0;
	if (c->connecting && errno != EINPROGRESS)
		goto failed;
	return 0;
failed:;
	int saved = errno;
	connection_close(c);
	errno = saved;
	return -1;
}

int connection_made(struct connection *c, int64_t now_ms)
{
	int error = 0;
	socklen_t len = sizeof error;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return errno;
	if (error == 0) {
		c->connecting = false;
		c->round_trip_ms = now_ms - c->heard_ms;
	}
	return error;
}

void connection_close(struct connection *c)
{
	if (c->fd >= 0) {
		/* A checker or a query to the tracker may hold a copy of the socket. */
		shutdown(c->fd, SHUT_RDWR);
		close(c->fd);
	}
	connection_free(c);
}

int connection_send(struct connection *c)
{
	while (c->out_sent < c->out_used) {
		ssize_t n = send(c->fd, c->out + c->out_sent, c->out_used - c->out_sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			break;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
		c->out_sent += (size_t)n;
	}
	c->out_used = c->out_sent = 0;
	return 0;
}

void connection_wake_at(struct connection *c, size_t bytes)
{
	int value = (int)bytes;

	if (bytes != c->wake_bytes && setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value) == 0)
		c->wake_bytes = bytes;
}
