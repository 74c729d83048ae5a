/* test_bytes.c - numbers byte for byte. */
#include "base/bytes.h"

#include <string.h>

#include "unit.h"

#define GUARD 0xee

/* Whether what stands in front of the n bytes and behind them has been left alone. */
static bool is_guarded(const uint8_t *buffer, size_t n)
{
	return buffer[0] == GUARD && buffer[n + 1] == GUARD;
}

static void test_numbers(void)
{
	static const uint8_t bytes[] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
	static const uint8_t ones[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint8_t b[10];

	memset(b, GUARD, sizeof b);
	encode_be16(b + 1, 0x0123);
	CHECK(memcmp(b + 1, bytes, 2) == 0 && is_guarded(b, 2));
	memset(b, GUARD, sizeof b);
	encode_be32(b + 1, 0x01234567);
	CHECK(memcmp(b + 1, bytes, 4) == 0 && is_guarded(b, 4));
	memset(b, GUARD, sizeof b);
	encode_be64(b + 1, UINT64_C(0x0123456789abcdef));
	CHECK(memcmp(b + 1, bytes, 8) == 0 && is_guarded(b, 8));

	CHECK(decode_be16(bytes) == 0x0123);
	CHECK(decode_be16(bytes + 6) == 0xcdef);
	CHECK(decode_be32(bytes) == 0x01234567);
	CHECK(decode_be32(bytes + 4) == 0x89abcdef);
	CHECK(decode_be64(bytes) == UINT64_C(0x0123456789abcdef));
	CHECK(decode_be16(ones) == UINT16_MAX);
	CHECK(decode_be32(ones) == UINT32_MAX);
	CHECK(decode_be64(ones) == UINT64_MAX);
}

int main(void)
{
	RUN(test_numbers);
	return unit_result();
}
