/* wire.c - requests and responses as bytes. Each field is written by itself: no struct
 * is sent as it lies in memory. */
#include "net/wire.h"

#include <string.h>

#include "base/bytes.h"

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
