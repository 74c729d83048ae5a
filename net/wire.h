/* wire.h - requests and responses as bytes. PROTOCOL.md, sections 2 and 3.
 *
 * Numbers on the wire are big-endian; in structs everything is in host order.
 * Every encode writes, and every decode reads, exactly the named size. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"
#include "sha256.h"

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
	TRACKER_ENTRY_SIZE = 12
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

#endif
