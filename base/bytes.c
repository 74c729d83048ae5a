/* bytes.c - numbers as big-endian bytes. Shifts do the same on machines of both byte
 * orders. */
#include "base/bytes.h"

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
