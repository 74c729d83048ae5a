/* args.h - command lines: what the programs say about theirs, and numbers,
 * addresses and hashes as people write them. */
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

/* Names the program, and gives its usage, and the rest of its help; to be called
 * first of all, since it calls log_program. The texts are kept, not copied. */
void args_program(const char *name, const char *usage, const char *help);

/* Says what is wrong with the command line, unless format is NULL (getopt has
 * said it), how it should be, and that --help tells more. Exits with status 2. */
ARGS_NORETURN ARGS_FORMAT void args_misuse(const char *format, ...);

/* Print usage and help, or the version, to standard output. Exit with status 0. */
ARGS_NORETURN void args_help(void);
ARGS_NORETURN void args_version(void);

/* Each of these reads the whole text or nothing: empty text, anything behind the
 * value, and what is out of range give false, and the result is not touched. */

/* A decimal number from min to max. */
bool args_number(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/* A number of bytes, which K, M or G behind it multiplies by a power of 1024. */
bool args_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes);

/* A TCP port from min (0 or 1) to 65535. */
bool args_port(const char *text, unsigned min, uint16_t *port);

/* An IPv4 address in dotted form, in host byte order. */
bool args_ip(const char *text, uint32_t *ip);

/* Whether the text can be a host's: an IPv4 address in dotted form, or a name. A
 * name is not empty and has more in it than digits and dots, which can only be an
 * address, perhaps a wrong one. */
bool args_host(const char *text);

/* 64 hexadecimal digits. */
bool args_hash(const char *text, uint8_t hash[SHA256_HASH_SIZE]);

#endif
