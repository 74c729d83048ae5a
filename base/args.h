/* args.h - reading a command line: usage and help, and numbers, addresses and
 * hashes as people write them. */
#ifndef ARGS_H
#define ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "sha256.h"

#ifdef __GNUC__
#define ARGS_NORETURN __attribute__((noreturn))
#define ARGS_FORMAT __attribute__((format(printf, 1, 2)))
#else
#define ARGS_NORETURN
#define ARGS_FORMAT
#endif

/* Sets the program's name, its usage, and the rest of its help. Call it before
 * anything else: it calls log_program. The texts are kept, not copied. */
void args_program(const char *name, const char *usage, const char *help);

/* Prints what is wrong with the command line (nothing if format is NULL: getopt
 * has printed it), the usage, and a reference to --help. Exits with EXIT_USAGE. */
ARGS_NORETURN ARGS_FORMAT void args_misuse(const char *format, ...);

/* Print usage and help, or the version, to standard output. Exit with status 0. */
ARGS_NORETURN void args_help(void);
ARGS_NORETURN void args_version(void);

/* Each of these functions reads the whole text. It returns false, and does not
 * change the result, if the text is empty, if anything follows the value, or if the
 * value is out of range. */

/* A decimal number from min to max. */
bool args_number(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/* A number of bytes; K, M or G behind it multiplies it by a power of 1024. */
bool args_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes);

/* A TCP port from min (0 or 1) to 65535. */
bool args_port(const char *text, unsigned min, uint16_t *port);

/* An IPv4 address in dotted form, in host byte order. */
bool args_ip(const char *text, uint32_t *ip);

/* Whether the text can name a host: by an IPv4 address in dotted form, or by a
 * name. Text of digits and dots alone is taken for an address, never for a name. */
bool args_host(const char *text);

/* 64 hexadecimal digits. */
bool args_hash(const char *text, uint8_t hash[SHA256_HASH_SIZE]);

#endif
