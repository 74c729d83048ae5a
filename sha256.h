/* sha256.h - SHA-256 (FIPS 180-4), of one message or of several at once.
 *
 * The interface is the course's (init, update, final) and one call more.
 * Contexts are plain memory of the caller's: no call allocates or fails. */
#ifndef SHA256_H
#define SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_HASH_SIZE 32	/* bytes in a hash */
#define SHA256_BLOCK_SIZE 64	/* bytes that the algorithm takes at a time */
#define SHA256_LANES_MAX 16	/* messages that sha256_update_lanes takes at most */

typedef struct {
	uint32_t state[8];
	uint64_t length;			/* bytes taken so far */
	uint8_t pending[SHA256_BLOCK_SIZE];	/* the first length % 64 are in use */
} SHA256_CTX;

/* Starts a new message in ctx, whatever ctx held before. */
void sha256_init(SHA256_CTX *ctx);

/* Appends len bytes of data to the message. */
void sha256_update(SHA256_CTX *ctx, const uint8_t data[], size_t len);

/* Ends the message and puts its hash into hash. ctx needs sha256_init before
 * it is used again. */
void sha256_final(SHA256_CTX *ctx, uint8_t hash[SHA256_HASH_SIZE]);

/* Appends len bytes of data[i] to the message of ctx[i], for each i < lanes;
 * lanes is SHA256_LANES_MAX at most. The result is that of sha256_update on
 * each; it takes less time, because one message alone leaves most of the CPU
 * waiting for its own last result. */
void sha256_update_lanes(SHA256_CTX *const ctx[], const uint8_t *const data[],
			 size_t len, size_t lanes);

/* Ends the messages, which have the same length, and puts the hash of each
 * into hash[i]. */
void sha256_final_lanes(SHA256_CTX *const ctx[], uint8_t *const hash[], size_t lanes);

/* How many messages at once take this CPU the least time for each, from 1 to
 * SHA256_LANES_MAX. */
size_t sha256_lanes(void);

/* The name of the implementation in use for that many messages at once:
 * "portable", "x86 SHA", "AVX-512" or "ARMv8 SHA2". */
const char *sha256_implementation(size_t lanes);

/* Makes the implementation of that name the only one in use, or with NULL the
 * best ones that this CPU has. Returns false, and changes nothing, if it has not
 * that one. For tests and benchmarks. */
bool sha256_force(const char *name);

#endif
