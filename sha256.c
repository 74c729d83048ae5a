/* sha256.c - SHA-256 as FIPS 180-4 defines it.
 *
 * One function does the work: it compresses whole blocks into the states of
 * several independent messages. There is a portable one, and one for the SHA
 * instructions of x86 (chosen when the program runs) and of ARMv8 (chosen by
 * the compiler's target). What surrounds it, buffering and padding, is shared. */
#include "sha256.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define HAVE_X86_SHA 1
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
#define HAVE_ARM_SHA 1
#include <arm_neon.h>
#endif

/* Compresses `blocks` blocks of 64 bytes from data[i] into state[i]. */
typedef void compress_fn(uint32_t *const state[], const uint8_t *const data[],
			 size_t blocks, size_t lanes);

/* FIPS 180-4, 4.2.2. */
static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* FIPS 180-4, 5.3.3. */
static const uint32_t initial_state[8] = {
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* ---- portable ---------------------------------------------------------- */

static uint32_t rotate_right(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static uint32_t load_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void compress_block(uint32_t state[8], const uint8_t *block)
{
	uint32_t w[64];
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (unsigned t = 0; t < 16; t++)
		w[t] = load_be32(block + 4 * t);
	for (unsigned t = 16; t < 64; t++) {
		uint32_t x = w[t - 15], y = w[t - 2];
		uint32_t s0 = rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3;
		uint32_t s1 = rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10;
		w[t] = s1 + w[t - 7] + s0 + w[t - 16];
	}
	for (unsigned t = 0; t < 64; t++) {
		uint32_t S1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
		uint32_t S0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
		uint32_t t1 = h + S1 + ((e & f) ^ (~e & g)) + K[t] + w[t];
		uint32_t t2 = S0 + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + t1;
		d = c, c = b, b = a, a = t1 + t2;
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
	state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void compress_portable(uint32_t *const state[], const uint8_t *const data[],
			      size_t blocks, size_t lanes)
{
	for (size_t lane = 0; lane < lanes; lane++)
		for (size_t i = 0; i < blocks; i++)
			compress_block(state[lane], data[lane] + i * SHA256_BLOCK_SIZE);
}

/* ---- the CPU's own instructions ---------------------------------------- */

/* Both units do four rounds in a few instructions whose results come late: the
 * lanes fill the time in between. The loops over them are written for a number
 * that is known where they are inlined, so that the compiler unrolls them and
 * every state lives in registers; x86 has enough of those for three. */

#if defined(HAVE_X86_SHA)

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

SHA_TARGET __attribute__((always_inline)) static inline void
x86_rounds(uint32_t *const state[], const uint8_t *const data[], size_t blocks,
	   const size_t lanes)
{
	const __m128i byte_swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i abef[SHA256_LANES], cdgh[SHA256_LANES];

	UNROLL
	for (size_t l = 0; l < lanes; l++) {
		__m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state[l]), 0xb1);
		__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state[l] + 1), 0x1b);
		abef[l] = _mm_alignr_epi8(badc, hgfe, 8);
		cdgh[l] = _mm_blend_epi16(hgfe, badc, 0xf0);
	}
	for (size_t i = 0; i < blocks; i++) {
		__m128i w[SHA256_LANES][4], abef_before[SHA256_LANES], cdgh_before[SHA256_LANES];

		UNROLL
		for (size_t l = 0; l < lanes; l++) {
			abef_before[l] = abef[l];
			cdgh_before[l] = cdgh[l];
		}
		UNROLL
		for (unsigned t = 0; t < 16; t++) {	/* four rounds each */
			const __m128i k = _mm_loadu_si128((const __m128i *)(K + 4 * t));
			__m128i sum[SHA256_LANES];

			UNROLL
			for (size_t l = 0; l < lanes; l++) {
				__m128i *now = &w[l][t & 3];
				if (t < 4) {
					const uint8_t *p = data[l] + i * SHA256_BLOCK_SIZE + 16 * t;
					*now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)p), byte_swap);
				} else {
					__m128i before = w[l][(t + 3) & 3];
					__m128i w7 = _mm_alignr_epi8(before, w[l][(t + 2) & 3], 4);
					*now = _mm_sha256msg1_epu32(*now, w[l][(t + 1) & 3]);
					*now = _mm_sha256msg2_epu32(_mm_add_epi32(*now, w7), before);
				}
				sum[l] = _mm_add_epi32(*now, k);
			}
			UNROLL
			for (size_t l = 0; l < lanes; l++)
				cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], sum[l]);
			UNROLL
			for (size_t l = 0; l < lanes; l++)
				abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l],
								_mm_shuffle_epi32(sum[l], 0x0e));
		}
		UNROLL
		for (size_t l = 0; l < lanes; l++) {
			abef[l] = _mm_add_epi32(abef[l], abef_before[l]);
			cdgh[l] = _mm_add_epi32(cdgh[l], cdgh_before[l]);
		}
	}
	UNROLL
	for (size_t l = 0; l < lanes; l++) {
		__m128i feba = _mm_shuffle_epi32(abef[l], 0x1b);
		__m128i dchg = _mm_shuffle_epi32(cdgh[l], 0xb1);
		_mm_storeu_si128((__m128i *)state[l], _mm_blend_epi16(feba, dchg, 0xf0));
		_mm_storeu_si128((__m128i *)state[l] + 1, _mm_alignr_epi8(dchg, feba, 8));
	}
}

SHA_TARGET static void compress_cpu(uint32_t *const state[], const uint8_t *const data[],
				    size_t blocks, size_t lanes)
{
	if (lanes == 1)
		x86_rounds(state, data, blocks, 1);
	else if (lanes == 2)
		x86_rounds(state, data, blocks, 2);
	else
		x86_rounds(state, data, blocks, 3);
}

static bool cpu_has_sha(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

static const char cpu_name[] = "x86 SHA";

#elif defined(HAVE_ARM_SHA)

static void compress_cpu(uint32_t *const state[], const uint8_t *const data[],
			 size_t blocks, size_t lanes)
{
	for (size_t l = 0; l < lanes; l++) {
		uint32x4_t abcd = vld1q_u32(state[l]), efgh = vld1q_u32(state[l] + 4);
		for (size_t i = 0; i < blocks; i++) {
			uint32x4_t w[4], abcd_before = abcd, efgh_before = efgh;
			for (unsigned t = 0; t < 16; t++) {
				uint32x4_t *now = &w[t & 3];
				if (t < 4)
					*now = vreinterpretq_u32_u8(vrev32q_u8(
						vld1q_u8(data[l] + i * SHA256_BLOCK_SIZE + 16 * t)));
				else
					*now = vsha256su1q_u32(vsha256su0q_u32(*now, w[(t + 1) & 3]),
							       w[(t + 2) & 3], w[(t + 3) & 3]);
				uint32x4_t sum = vaddq_u32(*now, vld1q_u32(K + 4 * t));
				uint32x4_t abcd_old = abcd;
				abcd = vsha256hq_u32(abcd, efgh, sum);
				efgh = vsha256h2q_u32(efgh, abcd_old, sum);
			}
			abcd = vaddq_u32(abcd, abcd_before);
			efgh = vaddq_u32(efgh, efgh_before);
		}
		vst1q_u32(state[l], abcd);
		vst1q_u32(state[l] + 4, efgh);
	}
}

static bool cpu_has_sha(void)
{
	return true;
}

static const char cpu_name[] = "ARMv8 SHA2";

#else

#define compress_cpu compress_portable

static bool cpu_has_sha(void)
{
	return false;
}

static const char cpu_name[] = "portable";

#endif

/* ---- choosing, once ------------------------------------------------------ */

static compress_fn compress_first;

/* The implementation in use; compress_first replaces itself. */
static _Atomic(compress_fn *) compress = compress_first;

void sha256_force_portable(bool portable)
{
	atomic_store_explicit(&compress, portable || !cpu_has_sha() ? compress_portable : compress_cpu,
			      memory_order_relaxed);
}

static void compress_first(uint32_t *const state[], const uint8_t *const data[],
			   size_t blocks, size_t lanes)
{
	sha256_force_portable(false);
	atomic_load_explicit(&compress, memory_order_relaxed)(state, data, blocks, lanes);
}

const char *sha256_implementation(void)
{
	if (atomic_load(&compress) == compress_first)
		sha256_force_portable(false);
	return atomic_load(&compress) == compress_portable ? "portable" : cpu_name;
}

/* ---- messages ------------------------------------------------------------ */

static void compress_one(SHA256_CTX *ctx, const uint8_t *data, size_t blocks)
{
	uint32_t *state = ctx->state;

	atomic_load_explicit(&compress, memory_order_relaxed)(&state, &data, blocks, 1);
}

void sha256_init(SHA256_CTX *ctx)
{
	memcpy(ctx->state, initial_state, sizeof initial_state);
	ctx->length = 0;
}

/* Fills the pending block from data; compresses it if that makes it whole.
 * Returns how many bytes were taken: 0 if there was no block to fill. */
static size_t fill_pending(SHA256_CTX *ctx, const uint8_t *data, size_t len)
{
	size_t used = ctx->length % SHA256_BLOCK_SIZE;
	size_t take = SHA256_BLOCK_SIZE - used;

	if (used == 0)
		return 0;
	if (take > len)
		take = len;
	memcpy(ctx->pending + used, data, take);
	ctx->length += take;
	if (used + take == SHA256_BLOCK_SIZE)
		compress_one(ctx, ctx->pending, 1);
	return take;
}

void sha256_update(SHA256_CTX *ctx, const uint8_t data[], size_t len)
{
	if (len == 0)
		return;
	size_t done = fill_pending(ctx, data, len);
	size_t blocks = (len - done) / SHA256_BLOCK_SIZE;
	size_t rest = (len - done) % SHA256_BLOCK_SIZE;

	if (blocks > 0)
		compress_one(ctx, data + done, blocks);
	if (rest > 0)
		memcpy(ctx->pending, data + len - rest, rest);
	ctx->length += len - done;
}

void sha256_update_lanes(SHA256_CTX *const ctx[], const uint8_t *const data[],
			 size_t len, size_t lanes)
{
	uint32_t *state[SHA256_LANES];
	const uint8_t *at[SHA256_LANES];
	size_t left[SHA256_LANES], blocks = len / SHA256_BLOCK_SIZE;

	for (size_t l = 0; l < lanes; l++) {
		size_t done = fill_pending(ctx[l], data[l], len);
		state[l] = ctx[l]->state;
		at[l] = data[l] + done;
		left[l] = len - done;
		if (blocks > left[l] / SHA256_BLOCK_SIZE)
			blocks = left[l] / SHA256_BLOCK_SIZE;
	}
	if (blocks > 0)
		atomic_load_explicit(&compress, memory_order_relaxed)(state, at, blocks, lanes);
	for (size_t l = 0; l < lanes; l++) {
		size_t done = blocks * SHA256_BLOCK_SIZE;
		ctx[l]->length += done;
		sha256_update(ctx[l], at[l] + done, left[l] - done);
	}
}

void sha256_final_lanes(SHA256_CTX *const ctx[], uint8_t *const hash[], size_t lanes)
{
	/* FIPS 180-4, 5.1.1: a one bit, zeros, and in the last 8 bytes of a
	 * block the message's length in bits. */
	uint8_t padding[2 * SHA256_BLOCK_SIZE] = {0x80};
	const uint8_t *same[SHA256_LANES];
	size_t used = ctx[0]->length % SHA256_BLOCK_SIZE;
	size_t size = (used < 56 ? SHA256_BLOCK_SIZE : 2 * SHA256_BLOCK_SIZE) - used;
	uint64_t bits = ctx[0]->length * 8;

	for (unsigned i = 0; i < 8; i++)
		padding[size - 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
	for (size_t l = 0; l < SHA256_LANES; l++)
		same[l] = padding;
	sha256_update_lanes(ctx, same, size, lanes);
	for (size_t l = 0; l < lanes; l++)
		for (unsigned i = 0; i < SHA256_HASH_SIZE; i++)
			hash[l][i] = (uint8_t)(ctx[l]->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_final(SHA256_CTX *ctx, uint8_t hash[SHA256_HASH_SIZE])
{
	sha256_final_lanes(&ctx, &hash, 1);
}
