/* wire.h - what goes over the network, as bytes, and the exchange with the
 * tracker. PROTOCOL.md, sections 2 and 3.
 *
 * Numbers on the wire are big-endian; in structs everything is in host order.
 * Every encode writes, and every decode reads, exactly the named size. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "sha256.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0		/* the programs ignore SIGPIPE; this is for other users */
#endif

void encode_be16(uint8_t *p, uint16_t value);
void encode_be32(uint8_t *p, uint32_t value);
void encode_be64(uint8_t *p, uint64_t value);
uint16_t decode_be16(const uint8_t *p);
uint32_t decode_be32(const uint8_t *p);
uint64_t decode_be64(const uint8_t *p);

/* ---- addresses ----------------------------------------------------------- */

struct address {
	uint32_t ip;
	uint16_t port;
};

#define ADDRESS_TEXT_SIZE 22	/* "255.255.255.255:65535" and its end */

/* Writes "IP:PORT" into text, and returns text. */
const char *address_text(struct address a, char text[ADDRESS_TEXT_SIZE]);

struct sockaddr_in;
struct sockaddr_in address_to_sockaddr(struct address a);
struct address address_from_sockaddr(const struct sockaddr_in *sa);

/* The address that the socket fd is bound to, or has for this connection. */
int address_of_socket(int fd, struct address *a);

/* Listens at *a, fills in the port that was chosen if it is 0 there, and prints
 * "listening on IP:PORT" to standard output. Where *a is no address of this
 * machine (it is behind a NAT, maybe), all of them will do if anywhere is true.
 * Returns the socket, non-blocking; else the process ends, with a message. */
int address_listen(struct address *a, bool anywhere);

/* Waits until the non-blocking socket fd is ready for the events of poll(2), or
 * has failed. Returns 0; or -1 with errno, ETIMEDOUT when the time (as of
 * clock_ms) has passed. */
int wait_ready(int fd, short events, int64_t deadline_ms);

/* ---- peer and peer ------------------------------------------------------- */

enum { PEER_REQUEST_SIZE = 64, PEER_RESPONSE_SIZE = 9 };	/* bytes */

enum peer_status {
	PEER_OK = 0,		/* the chunk follows */
	PEER_NO_FILE = 1,	/* from here on a message follows */
	PEER_NO_CHUNK_YET = 2,
	PEER_NO_SUCH_CHUNK = 3,
	PEER_BAD_REQUEST = 4
};

struct peer_request {
	uint64_t chunk;
	uint8_t cascade_hash[SHA256_HASH_SIZE];
};

struct peer_response {
	uint8_t status;		/* an enum peer_status, if the peer keeps to the protocol */
	uint64_t length;	/* bytes that follow */
};

void peer_request_encode(uint8_t bytes[PEER_REQUEST_SIZE], const struct peer_request *request);

/* False if the bytes are no request. What is reserved is ignored. */
bool peer_request_decode(struct peer_request *request, const uint8_t bytes[PEER_REQUEST_SIZE]);

/* Whether the first len bytes (fewer than a request has, maybe) can be the
 * beginning of a request. */
bool peer_request_begins(const uint8_t *bytes, size_t len);

void peer_response_encode(uint8_t bytes[PEER_RESPONSE_SIZE], const struct peer_response *response);
void peer_response_decode(struct peer_response *response, const uint8_t bytes[PEER_RESPONSE_SIZE]);

/* ---- peer and tracker ---------------------------------------------------- */

enum {
	TRACKER_REQUEST_SIZE = 54,	/* bytes */
	TRACKER_RESPONSE_SIZE = 5,
	TRACKER_ENTRY_SIZE = 12,
	TRACKER_ENTRIES_MAX = 256	/* of a longer list the rest is not read */
};

enum tracker_command { TRACKER_LIST = 1, TRACKER_SUBSCRIBE = 2 };

struct tracker_request {
	uint32_t command;
	uint8_t cascade_hash[SHA256_HASH_SIZE];
	struct address self;	/* where the requester listens */
};

struct tracker_response {
	uint8_t status;		/* 0: a list follows; else a message */
	uint32_t length;	/* bytes that follow */
};

struct tracker_entry {
	struct address address;
	uint32_t last_seen;	/* seconds since the epoch */
	bool good;
};

void tracker_request_encode(uint8_t bytes[TRACKER_REQUEST_SIZE],
			    const struct tracker_request *request);

/* Looks at the first len bytes of what should be a request (fewer, maybe).
 * Returns NULL if nothing is wrong with them, else what is, in words for the
 * requester. Fills in *request when len is TRACKER_REQUEST_SIZE. */
const char *tracker_request_decode(struct tracker_request *request, const uint8_t *bytes,
				   size_t len);

void tracker_response_encode(uint8_t bytes[TRACKER_RESPONSE_SIZE],
			     const struct tracker_response *response);
void tracker_response_decode(struct tracker_response *response,
			     const uint8_t bytes[TRACKER_RESPONSE_SIZE]);
void tracker_entry_encode(uint8_t bytes[TRACKER_ENTRY_SIZE], const struct tracker_entry *entry);
void tracker_entry_decode(struct tracker_entry *entry, const uint8_t bytes[TRACKER_ENTRY_SIZE]);

#define TRACKER_WHY_SIZE 256	/* bytes for a reason, its end included */

/* Asks the tracker at host and port (names or numbers) and waits for its
 * answer, timeout_ms milliseconds at most once the name is resolved. Where
 * request.self.ip is 0, the address that this machine reaches the tracker from
 * takes its place.
 * Returns how many peers it put into entries[TRACKER_ENTRIES_MAX]; or -1, and
 * why says why: the tracker's own words, made safe to print, or an error's. */
int tracker_exchange(const char *host, const char *port, struct tracker_request request,
		     int timeout_ms, struct tracker_entry entries[TRACKER_ENTRIES_MAX],
		     char why[TRACKER_WHY_SIZE]);

#endif
