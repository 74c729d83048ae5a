/* sha256.c - SHA-256 as FIPS 180-4 defines it.
 *
 * One function does the work: it compresses whole blocks into the states of
 * several independent messages. There is a portable one, one for the SHA
 * instructions of x86 and one for its vectors of 512 bits (chosen when the
 * program runs), and one for the SHA instructions of little-endian ARMv8 (chosen
 * by the compiler's target). What surrounds it, buffering and padding, is shared. */
#include "sha256.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#if defined(PORTABLE)
/* only what any C compiler can do */
#elif defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define HAVE_X86 1
#include <cpuid.h>
#include <immintrin.h>
#elif (defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)) && !defined(__ARM_BIG_ENDIAN)
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

/* FIPS 180-4, 4.1.2: the functions, of words or of vectors of words. */
#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define CH(x, y, z) (((x) & (y)) ^ (~(x) & (z)))
#define MAJ(x, y, z) (((x) & (y)) ^ ((x) & (z)) ^ ((y) & (z)))
#define SUM0(x) (ROTR(x, 2) ^ ROTR(x, 13) ^ ROTR(x, 22))
#define SUM1(x) (ROTR(x, 6) ^ ROTR(x, 11) ^ ROTR(x, 25))
#define SIGMA0(x) (ROTR(x, 7) ^ ROTR(x, 18) ^ (x) >> 3)
#define SIGMA1(x) (ROTR(x, 17) ^ ROTR(x, 19) ^ (x) >> 10)

/* What follows is unrolled, so that its indices are constants. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

/* FIPS 180-4, 6.2.2: takes a block, the 16 words in w, into the state s; uses w
 * up. A macro, since `word` is a type: uint32_t, or a vector of those, one from
 * each of several messages. */
#define COMPRESS_BLOCK(word, s, w) do {						\
	word a = s[0], b = s[1], c = s[2], d = s[3];				\
	word e = s[4], f = s[5], g = s[6], h = s[7];				\
	for (const uint32_t *k = K; ; k += 16) {				\
		UNROLL								\
		for (unsigned t = 0; t < 16; t++) {				\
			word t1 = h + SUM1(e) + CH(e, f, g) + k[t] + w[t];	\
			word t2 = SUM0(a) + MAJ(a, b, c);			\
			h = g, g = f, f = e, e = d + t1;			\
			d = c, c = b, b = a, a = t1 + t2;			\
		}								\
		if (k == K + 48)						\
			break;							\
		UNROLL	/* the words for the next 16 rounds */			\
		for (unsigned t = 0; t < 16; t++)				\
			w[t] += SIGMA1(w[(t + 14) % 16]) + w[(t + 9) % 16] +	\
				SIGMA0(w[(t + 1) % 16]);			\
	}									\
	s[0] += a, s[1] += b, s[2] += c, s[3] += d;				\
	s[4] += e, s[5] += f, s[6] += g, s[7] += h;				\
} while (0)

static uint32_t load_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void compress_one_portable(uint32_t state[8], const uint8_t *data, size_t blocks)
{
	uint32_t w[16];

	for (; blocks > 0; blocks--, data += SHA256_BLOCK_SIZE) {
		for (unsigned t = 0; t < 16; t++)
			w[t] = load_be32(data + 4 * t);
		COMPRESS_BLOCK(uint32_t, state, w);
	}
}

static void compress_portable(uint32_t *const state[], const uint8_t *const data[],
			      size_t blocks, size_t lanes)
{
	for (size_t l = 0; l < lanes; l++)
		compress_one_portable(state[l], data[l], blocks);
}

/* ---- SHA instructions -------------------------------------------------- */

/* Both units do four rounds in a few instructions whose results come late: the
 * lanes fill the time in between. The loops over them are written for a number
 * that is known where they are inlined, so that the compiler unrolls them and
 * every state lives in registers; x86 has enough of those for three. */

#if defined(HAVE_X86)

#define SHA_LANES 3
#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

SHA_TARGET __attribute__((always_inline)) static inline void
x86_rounds(uint32_t *const state[], const uint8_t *const data[], size_t blocks,
	   const size_t lanes)
{
	const __m128i byte_swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i abef[SHA_LANES], cdgh[SHA_LANES];

	UNROLL
	for (size_t l = 0; l < lanes; l++) {
		__m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state[l]), 0xb1);
		__m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state[l] + 1), 0x1b);
		abef[l] = _mm_alignr_epi8(badc, hgfe, 8);
		cdgh[l] = _mm_blend_epi16(hgfe, badc, 0xf0);
	}
	for (size_t i = 0; i < blocks; i++) {
		__m128i w[SHA_LANES][4], abef_before[SHA_LANES], cdgh_before[SHA_LANES];

		UNROLL
		for (size_t l = 0; l < lanes; l++) {
			abef_before[l] = abef[l];
			cdgh_before[l] = cdgh[l];
		}
		UNROLL
		for (unsigned t = 0; t < 16; t++) {	/* four rounds each */
			const __m128i k = _mm_loadu_si128((const __m128i *)(K + 4 * t));
			__m128i sum[SHA_LANES];

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

SHA_TARGET static void compress_sha(uint32_t *const state[], const uint8_t *const data[],
				    size_t blocks, size_t lanes)
{
	for (; lanes > 4 || lanes == 3; lanes -= 3, state += 3, data += 3)
		x86_rounds(state, data, blocks, 3);
	for (; lanes > 1; lanes -= 2, state += 2, data += 2)
		x86_rounds(state, data, blocks, 2);
	if (lanes == 1)
		x86_rounds(state, data, blocks, 1);
}

#elif defined(HAVE_ARM_SHA)

static void compress_sha(uint32_t *const state[], const uint8_t *const data[],
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

#endif

/* ---- AVX-512: a word of each of 16 messages in one vector ---------------- */

#if defined(HAVE_X86)

#define WIDE_TARGET __attribute__((target("avx512f,avx512bw")))
#define WIDE_LANES 16

typedef uint32_t words __attribute__((vector_size(4 * WIDE_LANES)));

/* Riffles 16 vectors as one does cards: the first half of the words and the
 * second, by turns. In bits, the place of a word (4 of its vector, 4 in it) is
 * rotated left by one. */
WIDE_TARGET __attribute__((always_inline)) static inline void
riffle(words to[16], const words from[16])
{
	const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
	const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));

	UNROLL
	for (unsigned i = 0; i < 8; i++) {
		__m512i a = (__m512i)from[i], b = (__m512i)from[i + 8];
		to[2 * i] = (words)_mm512_permutex2var_epi32(a, low, b);
		to[2 * i + 1] = (words)_mm512_permutex2var_epi32(a, high, b);
	}
}

/* Makes w[t] the t-th words of the 16 messages' blocks, at that offset. */
WIDE_TARGET __attribute__((always_inline)) static inline void
load_words(words w[16], const uint8_t *const data[], size_t offset)
{
	const __m512i byte_swap = _mm512_broadcast_i32x4(
		_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
	words between[16];

	UNROLL
	for (unsigned l = 0; l < WIDE_LANES; l++)
		w[l] = (words)_mm512_shuffle_epi8(_mm512_loadu_si512(data[l] + offset), byte_swap);
	/* After four of them, what was word t of vector l is word l of vector t. */
	riffle(between, w);
	riffle(w, between);
	riffle(between, w);
	riffle(w, between);
}

WIDE_TARGET static void compress_wide(uint32_t *const state[], const uint8_t *const data[],
				      size_t blocks, size_t lanes)
{
	const uint8_t *at[WIDE_LANES];
	words s[8] = {0};

	for (size_t l = 0; l < WIDE_LANES; l++)
		at[l] = data[l < lanes ? l : 0];	/* an idle lane needs something to read */
	for (size_t l = 0; l < lanes; l++)
		for (unsigned j = 0; j < 8; j++)
			s[j][l] = state[l][j];
	for (size_t i = 0; i < blocks; i++) {
		words w[16];

		load_words(w, at, i * SHA256_BLOCK_SIZE);
		COMPRESS_BLOCK(words, s, w);
	}
	for (size_t l = 0; l < lanes; l++)
		for (unsigned j = 0; j < 8; j++)
			state[l][j] = s[j][l];
}

#endif

/* ---- choosing, once ------------------------------------------------------ */

enum { X86_SHA = 1, X86_WIDE = 2 };

/* Which of those this CPU has. */
static unsigned cpu_features(void)
{
	unsigned features = 0;
#if defined(HAVE_X86)
	unsigned a, b, c, d, basic;

	/* As few cpuids as can be: in a virtual machine each takes microseconds. */
	if (__get_cpuid_max(0, NULL) < 7)
		return 0;
	__cpuid(1, a, b, basic, d);
	__cpuid_count(7, 0, a, b, c, d);
	if ((basic & bit_SSSE3) && (basic & bit_SSE4_1) && (b & bit_SHA))
		features |= X86_SHA;
	if ((basic & bit_OSXSAVE) && (b & bit_AVX512F) && (b & bit_AVX512BW)) {
		/* Does the system save what the vectors hold? 0xe6: of xmm, of
		 * the rest of ymm, of the masks, of the rest of zmm, of zmm16-31. */
		__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
		if ((a & 0xe6) == 0xe6)
			features |= X86_WIDE;
	}
#endif
	return features;
}

static const struct implementation {
	const char *name;
	compress_fn *compress;
	size_t lanes;		/* how many messages at once suit it best */
	unsigned needs;		/* features of the CPU */
} implementations[] = {		/* the better the later */
	{"portable", compress_portable, 1, 0},
#if defined(HAVE_X86)
	{"x86 SHA", compress_sha, SHA_LANES, X86_SHA},
	{"AVX-512", compress_wide, WIDE_LANES, X86_WIDE},
#elif defined(HAVE_ARM_SHA)
	{"ARMv8 SHA2", compress_sha, 1, 0},
#endif
};
#define IMPLEMENTATIONS (sizeof implementations / sizeof implementations[0])

/* What is in use: `many` for that number of messages and for more. */
static _Atomic(const struct implementation *) few, many;
static atomic_size_t many_from;		/* 0: nothing is chosen yet */

/* Nanoseconds for SHA256_LANES_MAX messages of a few blocks: of several times
 * the shortest, in which nothing came between. */
static uint64_t time_of(compress_fn *compress)
{
	uint32_t state[SHA256_LANES_MAX][8] = {{0}}, *states[SHA256_LANES_MAX];
	const uint8_t *data[SHA256_LANES_MAX];
	uint64_t best = UINT64_MAX;

	for (size_t l = 0; l < SHA256_LANES_MAX; l++) {
		states[l] = state[l];
		data[l] = (const uint8_t *)K;	/* any bytes will do */
	}
	for (int i = 0; i < 5; i++) {
		struct timespec from, to;
		clock_gettime(CLOCK_MONOTONIC, &from);
		compress(states, data, sizeof K / SHA256_BLOCK_SIZE, SHA256_LANES_MAX);
		clock_gettime(CLOCK_MONOTONIC, &to);
		uint64_t ns = (uint64_t)(to.tv_sec - from.tv_sec) * 1000000000 +
			      (uint64_t)to.tv_nsec - (uint64_t)from.tv_nsec;
		if (ns < best)
			best = ns;
	}
	return best;
}

/* From how many messages on is `wide` the better? It takes as long for few as for
 * many, and `narrow` as long for each. Where they meet differs so much from CPU to
 * CPU (Sapphire Rapids: at 10 messages; Zen 4: never) that a rule would soon be
 * wrong. So both are timed, which takes some 20 microseconds; if it errs, the
 * hashes are right all the same. */
static size_t crossover(compress_fn *narrow, compress_fn *wide)
{
	uint64_t narrow_ns = time_of(narrow), wide_ns = time_of(wide);

	return wide_ns >= narrow_ns ? SIZE_MAX : 1 + (size_t)(SHA256_LANES_MAX * wide_ns / narrow_ns);
}

bool sha256_force(const char *name)
{
	const struct implementation *f = NULL, *m = NULL;
	unsigned lacks = ~cpu_features();

	for (size_t i = 0; i < IMPLEMENTATIONS; i++) {
		const struct implementation *it = &implementations[i];
		if ((it->needs & lacks) || (name != NULL && strcmp(it->name, name) != 0))
			continue;
		m = it;
		if (f == NULL || it->lanes < SHA256_LANES_MAX)
			f = it;
	}
	if (m == NULL)
		return false;
	atomic_store(&few, f);
	atomic_store(&many, m);
	atomic_store(&many_from, f == m ? 1 : crossover(f->compress, m->compress));
	return true;
}

static const struct implementation *best_for(size_t lanes)
{
	if (atomic_load(&many_from) == 0)
		sha256_force(NULL);
	return lanes < atomic_load(&many_from) ? atomic_load(&few) : atomic_load(&many);
}

size_t sha256_lanes(void)
{
	return best_for(SHA256_LANES_MAX)->lanes;
}

const char *sha256_implementation(size_t lanes)
{
	return best_for(lanes)->name;
}

/* ---- messages ------------------------------------------------------------ */

static void compress_one(SHA256_CTX *ctx, const uint8_t *data, size_t blocks)
{
	uint32_t *state = ctx->state;

	best_for(1)->compress(&state, &data, blocks, 1);
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
	uint32_t *state[SHA256_LANES_MAX];
	const uint8_t *at[SHA256_LANES_MAX];
	size_t left[SHA256_LANES_MAX], blocks = len / SHA256_BLOCK_SIZE;

	for (size_t l = 0; l < lanes; l++) {
		size_t done = fill_pending(ctx[l], data[l], len);
		state[l] = ctx[l]->state;
		at[l] = data[l] + done;
		left[l] = len - done;
		if (blocks > left[l] / SHA256_BLOCK_SIZE)
			blocks = left[l] / SHA256_BLOCK_SIZE;
	}
	if (blocks > 0)
		best_for(lanes)->compress(state, at, blocks, lanes);
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
	const uint8_t *same[SHA256_LANES_MAX];
	size_t used = ctx[0]->length % SHA256_BLOCK_SIZE;
	size_t size = (used < 56 ? SHA256_BLOCK_SIZE : 2 * SHA256_BLOCK_SIZE) - used;
	uint64_t bits = ctx[0]->length * 8;

	for (unsigned i = 0; i < 8; i++)
		padding[size - 8 + i] = (uint8_t)(bits >> (56 - 8 * i));
	for (size_t l = 0; l < SHA256_LANES_MAX; l++)
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
