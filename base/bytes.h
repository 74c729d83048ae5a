/* bytes.h - numbers as big-endian bytes, as in metafiles and on the network. A
 * function named ...16, ...32 or ...64 reads or writes so many bits. */
#ifndef BYTES_H
#define BYTES_H

#include <stdint.h>

void encode_be16(uint8_t *p, uint16_t value);
void encode_be32(uint8_t *p, uint32_t value);
void encode_be64(uint8_t *p, uint64_t value);
uint16_t decode_be16(const uint8_t *p);
uint32_t decode_be32(const uint8_t *p);
uint64_t decode_be64(const uint8_t *p);

#endif
