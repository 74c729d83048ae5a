/* tracker_client.c - the exchange with the tracker: one connection, one request,
 * one response. */
#include "net/tracker_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/wait.h"

/* Connects to the first address that answers. Returns the socket, non-blocking, or
 * -1 with errno. */
static int connect_until(const struct addrinfo *list, int64_t deadline_ms)
{
	int error = 0;
	socklen_t len = sizeof error;

	for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM, 0);
		if (fd < 0)
			return -1;
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
		    connect(fd, a->ai_addr, a->ai_addrlen) == 0)
			return fd;
		if (errno == EINPROGRESS && wait_ready(fd, POLLOUT, deadline_ms) == 0 &&
		    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0) {
			if (error == 0)
				return fd;
			errno = error;
		}
		error = errno;
		close(fd);
		errno = error;
	}
	return -1;
}

/* Reads len bytes, or fewer if the file ends. Returns how many, or -1 with errno. */
static ssize_t read_until(int fd, uint8_t *buffer, size_t len, int64_t deadline_ms)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(fd, buffer + got, len - got);
		if (n == 0)
			break;
		if (n > 0)
			got += (size_t)n;
		else if (errno == EAGAIN ? wait_ready(fd, POLLIN, deadline_ms) < 0 : errno != EINTR)
			return -1;
	}
	return (ssize_t)got;
}

/* Reads the tracker's answer. Result as of tracker_exchange. */
static int read_answer(int fd, int64_t deadline_ms, struct tracker_entry entries[],
		       char why[TRACKER_WHY_SIZE])
{
	uint8_t bytes[TRACKER_ENTRIES_MAX * TRACKER_ENTRY_SIZE];
	struct tracker_response response;
	ssize_t n = read_until(fd, bytes, TRACKER_RESPONSE_SIZE, deadline_ms);

	if (n == TRACKER_RESPONSE_SIZE) {
		tracker_response_decode(&response, bytes);
		size_t want = response.length < sizeof bytes ? response.length : sizeof bytes;
		if (response.status != 0 && want > TRACKER_WHY_SIZE - 1)
			want = TRACKER_WHY_SIZE - 1;
		n = read_until(fd, bytes, want, deadline_ms);
		if (n >= 0 && response.status != 0) {
			while (n > 0 && bytes[n - 1] <= ' ')	/* the message may be a line */
				n--;
			memcpy(why, bytes, (size_t)n);
			why[n] = '\0';
			log_clean(why);
			if (why[0] == '\0')	/* or it begins with a NUL */
				snprintf(why, TRACKER_WHY_SIZE, "it refuses without a reason");
			return -1;
		}
		if (n == (ssize_t)want && response.length % TRACKER_ENTRY_SIZE == 0) {
			for (size_t i = 0; i < want / TRACKER_ENTRY_SIZE; i++)
				tracker_entry_decode(&entries[i], bytes + i * TRACKER_ENTRY_SIZE);
			return (int)(want / TRACKER_ENTRY_SIZE);
		}
	}
	snprintf(why, TRACKER_WHY_SIZE, "%s",
		 n < 0 ? strerror(errno) : "its answer breaks the protocol");
	return -1;
}

int tracker_exchange(const char *host, const char *port, struct tracker_request request,
		     int timeout_ms, struct tracker_entry entries[TRACKER_ENTRIES_MAX],
		     char why[TRACKER_WHY_SIZE])
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	uint8_t bytes[TRACKER_REQUEST_SIZE];
	struct address local;
	int entries_read = -1;

	int error = getaddrinfo(host, port, &hints, &list);
	if (error != 0) {
		snprintf(why, TRACKER_WHY_SIZE, "%s",
			 error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
		return -1;
	}
	int64_t deadline_ms = clock_ms() + timeout_ms;
	int fd = connect_until(list, deadline_ms);
	freeaddrinfo(list);
	if (fd >= 0 && request.self.ip == 0 && address_of_socket(fd, &local) == 0)
		request.self.ip = local.ip;
	tracker_request_encode(bytes, &request);
	/* One write: some trackers read a request with one recv. 54 bytes always fit
	 * into the buffer of a new socket. */
	if (fd < 0 || send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes)
		snprintf(why, TRACKER_WHY_SIZE, "%s", strerror(errno));
	else
		entries_read = read_answer(fd, deadline_ms, entries, why);
	if (fd >= 0)
		close(fd);
	return entries_read;
}
