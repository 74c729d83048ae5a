/* args.h - numbers, addresses and hashes as people write them on a command
 * line. Each call reads the whole text or nothing: empty text, anything behind
 * the value, and what is out of range give false, and the result is not touched. */
#ifndef ARGS_H
#define ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "sha256.h"
#include "wire.h"

/* A decimal number from min to max. */
bool args_number(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/* A number of bytes, which K, M or G behind it multiplies by a power of 1024. */
bool args_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes);

/* A TCP port from min (0 or 1) to 65535. */
bool args_port(const char *text, unsigned min, uint16_t *port);

/* An IPv4 address in dotted form, in host byte order. */
bool args_ip(const char *text, uint32_t *ip);

/* 64 hexadecimal digits. */
bool args_hash(const char *text, uint8_t hash[SHA256_HASH_SIZE]);

#endif
