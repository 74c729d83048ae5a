/* wire.h - requests and responses as bytes (PROTOCOL.md, sections 2 and 3).
 *
 * Numbers are big-endian on the wire, and in host order in the structs. Each encode
 * function writes exactly the size in its parameter; each decode function reads it. */
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
	PEER_NO_FILE = 1,	/* a message follows, as after all statuses below */
	PEER_NO_CHUNK_YET = 2,
	PEER_NO_SUCH_CHUNK = 3,
	PEER_BAD_REQUEST = 4,
	PEER_STATUS_COUNT
};

struct peer_request {
	uint64_t chunk;
	uint8_t cascade_hash[SHA256_HASH_SIZE];
};

struct peer_response {
	uint8_t status;		/* an enum peer_status, unless the peer breaks the protocol */
	uint64_t length;	/* bytes that follow */
};

void peer_request_encode(uint8_t bytes[PEER_REQUEST_SIZE], const struct peer_request *request);

/* Returns false if the bytes are not a request. Reserved bytes are ignored. */
bool peer_request_decode(struct peer_request *request, const uint8_t bytes[PEER_REQUEST_SIZE]);

/* Whether the first len bytes, which may be fewer than a request has, can begin a
 * request. */
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

/* Checks the first len bytes of a request, which may not be complete yet. Returns NULL
 * if they are right; else what is wrong, in words for the requester. Fills in
 * *request if len is TRACKER_REQUEST_SIZE. */
const char *tracker_request_decode(struct tracker_request *request, const uint8_t *bytes,
				   size_t len);

void tracker_response_encode(uint8_t bytes[TRACKER_RESPONSE_SIZE],
			     const struct tracker_response *response);
void tracker_response_decode(struct tracker_response *response,
			     const uint8_t bytes[TRACKER_RESPONSE_SIZE]);
void tracker_entry_encode(uint8_t bytes[TRACKER_ENTRY_SIZE], const struct tracker_entry *entry);
void tracker_entry_decode(struct tracker_entry *entry, const uint8_t bytes[TRACKER_ENTRY_SIZE]);

#endif
