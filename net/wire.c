/* wire.c - requests and responses as bytes; the exchange with the tracker.
 * Bytes and shifts: no struct ever goes over the network as it lies in memory. */
#include "net/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "csapp.h"
#include "base/log.h"

void encode_be16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

void encode_be32(uint8_t *p, uint32_t value)
{
	encode_be16(p, (uint16_t)(value >> 16));
	encode_be16(p + 2, (uint16_t)value);
}

void encode_be64(uint8_t *p, uint64_t value)
{
	encode_be32(p, (uint32_t)(value >> 32));
	encode_be32(p + 4, (uint32_t)value);
}

uint16_t decode_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

uint32_t decode_be32(const uint8_t *p)
{
	return (uint32_t)decode_be16(p) << 16 | decode_be16(p + 2);
}

uint64_t decode_be64(const uint8_t *p)
{
	return (uint64_t)decode_be32(p) << 32 | decode_be32(p + 4);
}

/* ---- addresses ----------------------------------------------------------- */

const char *address_text(struct address a, char text[ADDRESS_TEXT_SIZE])
{
	snprintf(text, ADDRESS_TEXT_SIZE, "%u.%u.%u.%u:%u", a.ip >> 24 & 255u, a.ip >> 16 & 255u,
		 a.ip >> 8 & 255u, a.ip & 255u, (unsigned)a.port);
	return text;
}

struct sockaddr_in address_to_sockaddr(struct address a)
{
	struct sockaddr_in sa;

	memset(&sa, 0, sizeof sa);
	sa.sin_family = AF_INET;
	sa.sin_addr.s_addr = htonl(a.ip);
	sa.sin_port = htons(a.port);
	return sa;
}

struct address address_from_sockaddr(const struct sockaddr_in *sa)
{
	return (struct address){.ip = ntohl(sa->sin_addr.s_addr), .port = ntohs(sa->sin_port)};
}

int address_of_socket(int fd, struct address *a)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof sa;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -1;
	*a = address_from_sockaddr(&sa);
	return 0;
}

int address_listen(struct address *a, bool anywhere)
{
	char text[ADDRESS_TEXT_SIZE];
	struct address bound;
	struct sockaddr_in sa = address_to_sockaddr(*a);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	/* The sockets of clients inherit TCP_NODELAY: without it the end of a
	 * chunk could wait a round trip for more to send. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
		fatal("can't make a socket");
	int result = bind(fd, (struct sockaddr *)&sa, sizeof sa);
	if (result < 0 && errno == EADDRNOTAVAIL && anywhere) {
		log_info("%s is no address of this machine: listening on all of them", address_text(*a, text));
		sa.sin_addr.s_addr = htonl(INADDR_ANY);
		result = bind(fd, (struct sockaddr *)&sa, sizeof sa);
	}
	if (result < 0 || listen(fd, LISTENQ) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || address_of_socket(fd, &bound) < 0)
		fatal("can't listen on %s", address_text(*a, text));
	a->port = bound.port;
	printf("listening on %s\n", address_text(bound, text));
	if (fflush(stdout) != 0)
		fatal("standard output");
	return fd;
}

int wait_ready(int fd, short events, int64_t deadline_ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n;

	while ((n = poll(&p, 1, clock_poll_timeout(deadline_ms))) < 0 && errno == EINTR)
		;
	if (n == 0)
		errno = ETIMEDOUT;
	return n > 0 ? 0 : -1;
}

/* ---- peer and peer ------------------------------------------------------- */

static const uint8_t peer_magic[8] = "CASCADE1";

/* Byte 0: magic; 8: reserved; 24: chunk; 32: cascade hash. */
void peer_request_encode(uint8_t bytes[PEER_REQUEST_SIZE], const struct peer_request *request)
{
	memcpy(bytes, peer_magic, 8);
	memset(bytes + 8, 0, 16);
	encode_be64(bytes + 24, request->chunk);
	memcpy(bytes + 32, request->cascade_hash, SHA256_HASH_SIZE);
}

bool peer_request_decode(struct peer_request *request, const uint8_t bytes[PEER_REQUEST_SIZE])
{
	request->chunk = decode_be64(bytes + 24);
	memcpy(request->cascade_hash, bytes + 32, SHA256_HASH_SIZE);
	return peer_request_begins(bytes, PEER_REQUEST_SIZE);
}

bool peer_request_begins(const uint8_t *bytes, size_t len)
{
	return memcmp(bytes, peer_magic, len < sizeof peer_magic ? len : sizeof peer_magic) == 0;
}

/* Byte 0: status; 1: length. */
void peer_response_encode(uint8_t bytes[PEER_RESPONSE_SIZE], const struct peer_response *response)
{
	bytes[0] = response->status;
	encode_be64(bytes + 1, response->length);
}

void peer_response_decode(struct peer_response *response, const uint8_t bytes[PEER_RESPONSE_SIZE])
{
	response->status = bytes[0];
	response->length = decode_be64(bytes + 1);
}

/* ---- peer and tracker ---------------------------------------------------- */

enum { TRACKER_VERSION = 1, TRACKER_HEADER_SIZE = 16 };

/* Byte 0: magic; 4: version; 8: command; 12: length of what follows;
 * 16: cascade hash; 48: address; 52: port. */
void tracker_request_encode(uint8_t bytes[TRACKER_REQUEST_SIZE],
			    const struct tracker_request *request)
{
	memcpy(bytes, "CASC", 4);
	encode_be32(bytes + 4, TRACKER_VERSION);
	encode_be32(bytes + 8, request->command);
	encode_be32(bytes + 12, TRACKER_REQUEST_SIZE - TRACKER_HEADER_SIZE);
	memcpy(bytes + 16, request->cascade_hash, SHA256_HASH_SIZE);
	encode_be32(bytes + 48, request->self.ip);
	encode_be16(bytes + 52, request->self.port);
}

const char *tracker_request_decode(struct tracker_request *request, const uint8_t *bytes,
				   size_t len)
{
	if (memcmp(bytes, "CASC", len < 4 ? len : 4) != 0)
		return "this is a Cascade tracker: a request begins with CASC";
	if (len >= 8 && decode_be32(bytes + 4) != TRACKER_VERSION)
		return "unknown protocol version: this tracker speaks version 1";
	if (len >= 12) {
		request->command = decode_be32(bytes + 8);
		if (request->command != TRACKER_LIST && request->command != TRACKER_SUBSCRIBE)
			return "unknown command: 1 lists peers, 2 subscribes";
	}
	if (len >= 16 && decode_be32(bytes + 12) != TRACKER_REQUEST_SIZE - TRACKER_HEADER_SIZE)
		return "wrong length: 38 bytes follow the first 16";
	if (len >= TRACKER_REQUEST_SIZE) {
		memcpy(request->cascade_hash, bytes + 16, SHA256_HASH_SIZE);
		request->self.ip = decode_be32(bytes + 48);
		request->self.port = decode_be16(bytes + 52);
	}
	return NULL;
}

/* Byte 0: status; 1: length. */
void tracker_response_encode(uint8_t bytes[TRACKER_RESPONSE_SIZE],
			     const struct tracker_response *response)
{
	bytes[0] = response->status;
	encode_be32(bytes + 1, response->length);
}

void tracker_response_decode(struct tracker_response *response,
			     const uint8_t bytes[TRACKER_RESPONSE_SIZE])
{
	response->status = bytes[0];
	response->length = decode_be32(bytes + 1);
}

/* Byte 0: address; 4: port; 6: last seen; 10: good peer; 11: reserved. */
void tracker_entry_encode(uint8_t bytes[TRACKER_ENTRY_SIZE], const struct tracker_entry *entry)
{
	encode_be32(bytes, entry->address.ip);
	encode_be16(bytes + 4, entry->address.port);
	encode_be32(bytes + 6, entry->last_seen);
	bytes[10] = entry->good;
	bytes[11] = 0;
}

void tracker_entry_decode(struct tracker_entry *entry, const uint8_t bytes[TRACKER_ENTRY_SIZE])
{
	entry->address.ip = decode_be32(bytes);
	entry->address.port = decode_be16(bytes + 4);
	entry->last_seen = decode_be32(bytes + 6);
	entry->good = bytes[10] == 1;
}

/* Connects to one of the addresses; the socket is non-blocking. */
static int connect_until(const struct addrinfo *list, int64_t deadline_ms)
{
	int error = 0;
	socklen_t len = sizeof error;

	for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM, 0);
		if (fd < 0)
			return -1;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
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

/* Reads len bytes; fewer at end of file. Returns how many, or -1. */
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

/* Reads the tracker's answer. Returns the number of entries, or -1 with why. */
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
			memcpy(why, bytes, (size_t)n);
			why[n] = '\0';
			why[strcspn(why, "\r\n")] = '\0';	/* a message may be a line */
			log_clean(why);
			if (n == 0)
				snprintf(why, TRACKER_WHY_SIZE, "it refuses, and doesn't say why");
			return -1;
		}
		if (n == (ssize_t)want && response.length % TRACKER_ENTRY_SIZE == 0) {
			for (size_t i = 0; i < want / TRACKER_ENTRY_SIZE; i++)
				tracker_entry_decode(&entries[i], bytes + i * TRACKER_ENTRY_SIZE);
			return (int)(want / TRACKER_ENTRY_SIZE);
		}
	}
	snprintf(why, TRACKER_WHY_SIZE, "%s",
		 n < 0 ? strerror(errno) : "its answer doesn't keep to the protocol");
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
	/* One write: some trackers read a request with one recv. A new socket
	 * has room for 54 bytes. */
	if (fd < 0 || send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) != sizeof bytes)
		snprintf(why, TRACKER_WHY_SIZE, "%s", strerror(errno));
	else
		entries_read = read_answer(fd, deadline_ms, entries, why);
	if (fd >= 0)
		close(fd);
	return entries_read;
}
