/* test_wire.c - every message byte for byte, as PROTOCOL.md has it. */
#include "net/wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "unit.h"

#define GUARD 0xee

/* Whether what stands in front of the n bytes and behind them has been left alone. */
static bool is_guarded(const uint8_t *buffer, size_t n)
{
	return buffer[0] == GUARD && buffer[n + 1] == GUARD;
}

/* ---- Peer and peer ---- */

static const uint8_t a_hash[SHA256_HASH_SIZE] = {
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
	0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};

static const uint8_t a_peer_request[64] = {
	'C', 'A', 'S', 'C', 'A', 'D', 'E', '1',
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8,
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
	0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};

/* A copy of n bytes, so that a look behind them is one too far for the sanitizer. */
static uint8_t *exact_copy(const uint8_t *bytes, size_t n)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);

	if (copy == NULL)
		abort();
	memcpy(copy, bytes, n);
	return copy;
}

static void test_peer_request(void)
{
	struct peer_request request = {.chunk = UINT64_C(0xa1a2a3a4a5a6a7a8)}, back = {0};
	uint8_t b[PEER_REQUEST_SIZE + 2];

	CHECK(PEER_REQUEST_SIZE == 64);
	memcpy(request.cascade_hash, a_hash, SHA256_HASH_SIZE);
	memset(b, GUARD, sizeof b);
	peer_request_encode(b + 1, &request);
	CHECK(memcmp(b + 1, a_peer_request, 64) == 0 && is_guarded(b, 64));
	uint8_t *copy = exact_copy(a_peer_request, sizeof a_peer_request);	/* a_hash may lie before the other */
	CHECK(peer_request_decode(&back, copy));
	CHECK(back.chunk == request.chunk && memcmp(back.cascade_hash, a_hash, 32) == 0);
	free(copy);

	/* What is reserved may be anything. */
	memset(b + 1 + 8, '0', 16);
	back.chunk = 0;
	CHECK(peer_request_decode(&back, b + 1) && back.chunk == request.chunk);
	memset(b + 1 + 24, 0xff, 8);
	CHECK(peer_request_decode(&back, b + 1) && back.chunk == UINT64_MAX);
	for (size_t i = 0; i < 8; i++) {
		memcpy(b, a_peer_request, 64);
		b[i] ^= 0x20;
		CHECK(!peer_request_decode(&back, b));
	}
}

static void test_peer_request_begins(void)
{
	uint8_t bytes[64];

	for (size_t len = 0; len <= 64; len++) {
		uint8_t *copy = exact_copy(a_peer_request, len);
		CHECK(peer_request_begins(copy, len));
		free(copy);
		for (size_t wrong = 0; wrong < 64; wrong++) {
			memcpy(bytes, a_peer_request, 64);
			bytes[wrong] ^= 0x01;
			CHECK(peer_request_begins(bytes, len) == (wrong >= 8 || len <= wrong));
		}
	}
	CHECK(!peer_request_begins((const uint8_t *)"GET / HTTP/1.1", 1));
}

static void test_peer_response(void)
{
	static const uint8_t bytes[9] = {2, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8};
	struct peer_response response = {.status = 2, .length = UINT64_C(0xb1b2b3b4b5b6b7b8)}, back;
	uint8_t b[PEER_RESPONSE_SIZE + 2];

	CHECK(PEER_RESPONSE_SIZE == 9);
	CHECK(PEER_OK == 0 && PEER_NO_FILE == 1 && PEER_NO_CHUNK_YET == 2);
	CHECK(PEER_NO_SUCH_CHUNK == 3 && PEER_BAD_REQUEST == 4);
	memset(b, GUARD, sizeof b);
	peer_response_encode(b + 1, &response);
	CHECK(memcmp(b + 1, bytes, 9) == 0 && is_guarded(b, 9));
	peer_response_decode(&back, bytes);
	CHECK(back.status == 2 && back.length == response.length);
	memset(b, 0xff, sizeof b);
	peer_response_decode(&back, b);
	CHECK(back.status == 255 && back.length == UINT64_MAX);
}

/* ---- Peer and tracker ---- */

static const uint8_t a_tracker_request[54] = {
	'C', 'A', 'S', 'C',
	0, 0, 0, 1,
	0, 0, 0, 2,
	0, 0, 0, 38,
	0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
	0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff,
	192, 168, 1, 2,
	0x1f, 0x90};

static struct tracker_request request_for_test(enum tracker_command command)
{
	struct tracker_request request = {.command = command, .self = {0xc0a80102, 8080}};

	memcpy(request.cascade_hash, a_hash, SHA256_HASH_SIZE);
	return request;
}

static void test_tracker_request(void)
{
	struct tracker_request request = request_for_test(TRACKER_SUBSCRIBE), back;
	uint8_t b[TRACKER_REQUEST_SIZE + 2];

	CHECK(TRACKER_REQUEST_SIZE == 54);
	CHECK(TRACKER_LIST == 1 && TRACKER_SUBSCRIBE == 2);
	memset(b, GUARD, sizeof b);
	tracker_request_encode(b + 1, &request);
	CHECK(memcmp(b + 1, a_tracker_request, 54) == 0 && is_guarded(b, 54));
	memset(&back, 0, sizeof back);
	CHECK(tracker_request_decode(&back, a_tracker_request, 54) == NULL);
	CHECK(back.command == 2 && back.self.ip == 0xc0a80102 && back.self.port == 8080);
	CHECK(memcmp(back.cascade_hash, a_hash, SHA256_HASH_SIZE) == 0);

	request.command = TRACKER_LIST;
	tracker_request_encode(b + 1, &request);
	CHECK(b[1 + 11] == 1);
	CHECK(tracker_request_decode(&back, b + 1, 54) == NULL && back.command == 1);
}

static void test_tracker_request_prefixes(void)
{
	struct tracker_request request;

	for (size_t len = 0; len <= 54; len++) {
		uint8_t *copy = exact_copy(a_tracker_request, len);
		CHECK(tracker_request_decode(&request, copy, len) == NULL);
		free(copy);
	}
}

/* A wrong byte of the magic is seen at once; a wrong number when it is there whole at the
 * latest, and never before its wrong byte. */
static void test_tracker_request_wrong_bytes(void)
{
	struct tracker_request request;
	uint8_t bytes[54];

	for (size_t wrong = 0; wrong < 54; wrong++) {
		size_t surely = wrong < 4 ? wrong + 1 : (wrong / 4 + 1) * 4;
		memcpy(bytes, a_tracker_request, 54);
		bytes[wrong] ^= 0x40;
		for (size_t len = 0; len <= 54; len++) {
			uint8_t *copy = exact_copy(bytes, len);
			const char *why = tracker_request_decode(&request, copy, len);
			if (wrong >= 16 || len <= wrong)
				CHECK(why == NULL);
			else if (len >= surely)
				CHECK(why != NULL && why[0] != '\0');
			free(copy);
		}
	}
}

static const char *verdict(size_t offset, uint32_t value)
{
	static struct tracker_request request;
	uint8_t bytes[54];

	memcpy(bytes, a_tracker_request, 54);
	encode_be32(bytes + offset, value);
	return tracker_request_decode(&request, bytes, offset + 4);
}

/* Each wrong field has words of its own, and the first wrong one counts. */
static void test_tracker_request_wrong_fields(void)
{
	const char *why[] = {verdict(0, 0), verdict(4, 2), verdict(8, 3), verdict(12, 39)};
	struct tracker_request request;
	uint8_t all_wrong[54];

	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < i; j++)
			CHECK(why[i] != NULL && why[j] != NULL && strcmp(why[i], why[j]) != 0);
	CHECK(verdict(4, 0) != NULL && verdict(4, 1) == NULL && verdict(4, UINT32_MAX) != NULL);
	CHECK(verdict(8, 0) != NULL && verdict(8, 1) == NULL && verdict(8, 2) == NULL);
	CHECK(verdict(8, UINT32_MAX) != NULL);
	CHECK(verdict(12, 0) != NULL && verdict(12, 37) != NULL && verdict(12, 38) == NULL);
	CHECK(verdict(12, 54) != NULL && verdict(12, UINT32_MAX) != NULL);
	memset(all_wrong, 'X', sizeof all_wrong);
	for (size_t i = 0; i < 4; i++) {
		CHECK(tracker_request_decode(&request, all_wrong, 54) == why[i]);
		memcpy(all_wrong + 4 * i, a_tracker_request + 4 * i, 4);
	}
}

static void test_tracker_response(void)
{
	static const uint8_t bytes[5] = {1, 0xc1, 0xc2, 0xc3, 0xc4};
	struct tracker_response response = {.status = 1, .length = 0xc1c2c3c4}, back;
	uint8_t b[TRACKER_RESPONSE_SIZE + 2];

	CHECK(TRACKER_RESPONSE_SIZE == 5);
	memset(b, GUARD, sizeof b);
	tracker_response_encode(b + 1, &response);
	CHECK(memcmp(b + 1, bytes, 5) == 0 && is_guarded(b, 5));
	tracker_response_decode(&back, bytes);
	CHECK(back.status == 1 && back.length == 0xc1c2c3c4);
}

static void test_tracker_entry(void)
{
	uint8_t bytes[12] = {10, 20, 30, 40, 0x1f, 0x90, 0xd1, 0xd2, 0xd3, 0xd4, 1, 0};
	struct tracker_entry entry = {{0x0a141e28, 8080}, 0xd1d2d3d4, true}, back;
	uint8_t b[TRACKER_ENTRY_SIZE + 2];

	CHECK(TRACKER_ENTRY_SIZE == 12);
	memset(b, GUARD, sizeof b);
	tracker_entry_encode(b + 1, &entry);
	CHECK(memcmp(b + 1, bytes, 12) == 0 && is_guarded(b, 12));
	tracker_entry_decode(&back, bytes);
	CHECK(back.address.ip == 0x0a141e28 && back.address.port == 8080);
	CHECK(back.last_seen == 0xd1d2d3d4 && back.good);
	entry.good = false;
	tracker_entry_encode(b + 1, &entry);
	CHECK(b[1 + 10] == 0 && b[1 + 11] == 0);
	bytes[11] = 0xff;		/* reserved */
	tracker_entry_decode(&back, bytes);
	CHECK(back.good && back.last_seen == 0xd1d2d3d4);
	bytes[10] = 0;
	tracker_entry_decode(&back, bytes);
	CHECK(!back.good);
	bytes[10] = 2;
	tracker_entry_decode(&back, bytes);
	CHECK(!back.good);
}

int main(void)
{
	RUN(test_peer_request);
	RUN(test_peer_request_begins);
	RUN(test_peer_response);
	RUN(test_tracker_request);
	RUN(test_tracker_request_prefixes);
	RUN(test_tracker_request_wrong_bytes);
	RUN(test_tracker_request_wrong_fields);
	RUN(test_tracker_response);
	RUN(test_tracker_entry);
	return unit_result();
}
