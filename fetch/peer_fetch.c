/* peer_fetch.c - the client's side of a connection to a peer; run by the fetcher. */
#include "fetch/peer_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define RATE_MS 1000		/* a period of measuring a peer's rate */
#define RATE_LEAST_MS 250	/* the first says nothing before */
#define CLOSINGS_ALWAYS 2	/* one may have been by chance */

int peer_connect(struct peer *p)
{
	struct sockaddr_in sa = address_to_sockaddr(p->address);
	int on = 1;

	p->asked = malloc(PEER_ASKED_MAX * sizeof *p->asked);
	p->out = malloc(PEER_OUT_MAX * PEER_REQUEST_SIZE);
	p->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (p->asked == NULL || p->out == NULL || p->fd < 0)
		goto failed;
	if (fcntl(p->fd, F_SETFL, O_NONBLOCK) < 0)
		goto failed;
	/* A request is small and must not wait for company. If it does, it comes late. */
	(void)!setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	p->connecting = connect(p->fd, (struct sockaddr *)&sa, sizeof sa) < 0;
	if (p->connecting && errno != EINPROGRESS)
		goto failed;
	p->heard_ms = p->rate_since_ms = clock_ms();
	p->enough = 1;
	p->round_trip_ms = 0;
	p->answers = 0;
	p->rate_bytes = p->rate_bytes_before = 0;
	p->measured = false;
	p->asked_first = p->asked_count = 0;
	p->out_used = p->out_sent = 0;
	p->header_got = 0;
	p->body_got = 0;
	return 0;
failed:;
	int saved = errno;
	peer_disconnect(p);
	errno = saved;
	return -1;
}

int peer_connected(struct peer *p)
{
	int error = 0;
	socklen_t len = sizeof error;

	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return errno;
	if (error == 0) {
		p->connecting = false;
		p->round_trip_ms = clock_ms() - p->heard_ms;
	}
	return error;
}

void peer_disconnect(struct peer *p)
{
	if (p->fd >= 0) {
		/* A query to the tracker may hold a copy of the socket. */
		shutdown(p->fd, SHUT_RDWR);
		close(p->fd);
	}
	free(p->asked);
	free(p->out);
	p->fd = -1;
	p->asked = NULL;
	p->out = NULL;
	p->asked_count = 0;
	p->connecting = false;
}

uint64_t peer_awaited(const struct peer *p)
{
	return p->asked[p->asked_first];
}

void peer_forget_awaited(struct peer *p)
{
	p->asked_first = (p->asked_first + 1) % PEER_ASKED_MAX;
	p->asked_count--;
	p->due_ms = clock_ms();
}

bool peer_can_ask(const struct peer *p)
{
	return p->asked_count < PEER_ASKED_MAX && p->out_used < PEER_OUT_MAX * PEER_REQUEST_SIZE;
}

void peer_ask(struct peer *p, uint64_t chunk, const uint8_t cascade_hash[SHA256_HASH_SIZE])
{
	struct peer_request request = {.chunk = chunk};

	memcpy(request.cascade_hash, cascade_hash, SHA256_HASH_SIZE);
	peer_request_encode(p->out + p->out_used, &request);
	p->out_used += PEER_REQUEST_SIZE;
	p->asked[(p->asked_first + p->asked_count) % PEER_ASKED_MAX] = chunk;
	if (p->asked_count++ == 0) {
		int64_t now = clock_ms();
		p->rate_since_ms += now - p->heard_ms;	/* it had nothing to send */
		p->heard_ms = p->due_ms = now;
	}
}

bool peer_closes_always(const struct peer *p)
{
	return p->closings >= CLOSINGS_ALWAYS;
}

int peer_send(struct peer *p)
{
	while (p->out_sent < p->out_used) {
		ssize_t n = send(p->fd, p->out + p->out_sent, p->out_used - p->out_sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			break;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
		p->out_sent += (size_t)n;
	}
	p->out_used = p->out_sent = 0;
	return 0;
}

void peer_set_enough(struct peer *p, size_t bytes)
{
	int value = (int)bytes;

	/* Where poll doesn't care, it tells of fewer. */
	if (bytes != p->enough && setsockopt(p->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value) == 0)
		p->enough = bytes;
}

void peer_heard(struct peer *p, size_t bytes)
{
	int64_t now = clock_ms(), ms = now - p->rate_since_ms;

	p->heard_ms = now;
	if (ms >= RATE_MS) {
		bool next = ms < 2 * RATE_MS;	/* or it was silent for longer than a period */
		p->rate_bytes_before = next ? p->rate_bytes : 0;
		p->rate_bytes = 0;
		p->rate_since_ms = next ? p->rate_since_ms + RATE_MS : now;
		p->measured = true;
	}
	p->rate_bytes += bytes;
	p->rate = peer_rate_now(p);
}

void peer_excuse(struct peer *p, int64_t ms)
{
	int64_t now = clock_ms();

	p->heard_ms = clock_earlier(p->heard_ms + ms, now);
	p->due_ms = clock_earlier(p->due_ms + ms, now);
	p->rate_since_ms = clock_earlier(p->rate_since_ms + ms, now);
}

/* The period before counts as far as it lies within the last RATE_MS. */
double peer_rate_now(const struct peer *p)
{
	int64_t until_ms = p->asked_count > 0 ? clock_ms() : p->heard_ms, ms = until_ms - p->rate_since_ms;

	if (ms >= 2 * RATE_MS)
		return 0;
	if (ms >= RATE_MS || !p->measured)
		return (double)p->rate_bytes * 1000 / (double)(ms > RATE_LEAST_MS ? ms : RATE_LEAST_MS);
	return (double)p->rate_bytes + (double)p->rate_bytes_before * (double)(RATE_MS - ms) / RATE_MS;
}
