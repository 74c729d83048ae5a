/* test_sha256.c - SHA-256 against FIPS 180-4 and against itself: every implementation that this
 * CPU has, messages whole and in pieces, one at a time and in any number of lanes.
 *
 * What is not from FIPS 180-4 was computed with another implementation (Python's hashlib). */
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* sha256.c is included, not linked: a test can take features from the CPU, and sets how long
 * an implementation seems to take. */
static int clock_gettime_for_test(clockid_t clock, struct timespec *t);
#define clock_gettime clock_gettime_for_test
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__)) && !defined(PORTABLE)
#define ON_X86 1
#include <cpuid.h>
static unsigned cpuid_max = 7, lacking[8][4];	/* bits of a, b, c and d, for each question */
#undef __cpuid
#undef __cpuid_count
#define __get_cpuid_max(level, signature) (cpuid_max < 7 ? cpuid_max : (unsigned)__get_cpuid_max(level, signature))
#define __cpuid(level, a, b, c, d) __cpuid_count(level, 0, a, b, c, d)
#define __cpuid_count(level, count, a, b, c, d) do {						\
	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "0"(level), "2"(count));	\
	(a) &= ~lacking[level][0], (b) &= ~lacking[level][1];					\
	(c) &= ~lacking[level][2], (d) &= ~lacking[level][3];					\
} while (0)
#endif
#include "sha256.c"
#undef clock_gettime

#include "unit.h"

#define MESSAGE_SIZE 1000
#define BIG_PIECE ((size_t)1 << 20)
#define QUICK_MS 20000		/* what the long run may take; where a CPU is emulated it takes more */

static uint8_t message[MESSAGE_SIZE];
static uint8_t zeros[BIG_PIECE];

/* A message for each lane, and the hashes of its beginnings by the portable implementation. */
static uint8_t other[SHA256_LANES_MAX][MESSAGE_SIZE];
static uint8_t expected[SHA256_LANES_MAX][MESSAGE_SIZE + 1][SHA256_HASH_SIZE];

/* Each implementation alone, and last what is chosen among them. */
static const char *const names[] = {"portable", "x86 SHA", "AVX-512", "ARMv8 SHA2", NULL};
#define NAMES (sizeof names / sizeof names[0])
#define FOR_EACH_IMPLEMENTATION \
	for (size_t name_ = 0; name_ < NAMES; name_++) if (sha256_force(names[name_]))

static void fill_messages(void)
{
	for (size_t i = 0; i < MESSAGE_SIZE; i++)
		message[i] = (uint8_t)(i * 167 + (i >> 8) * 13 + 5);
	srand(4711);
	sha256_force("portable");
	for (size_t l = 0; l < SHA256_LANES_MAX; l++) {
		SHA256_CTX ctx, ended;
		sha256_init(&ctx);
		for (size_t i = 0; i <= MESSAGE_SIZE; i++) {
			ended = ctx;
			sha256_final(&ended, expected[l][i]);
			if (i < MESSAGE_SIZE) {
				other[l][i] = (uint8_t)(rand() >> 7);
				sha256_update(&ctx, &other[l][i], 1);
			}
		}
	}
}

static void hash_of(const uint8_t *data, size_t len, uint8_t hash[SHA256_HASH_SIZE])
{
	SHA256_CTX ctx;

	memset(&ctx, 0xa5, sizeof ctx);
	sha256_init(&ctx);
	sha256_update(&ctx, data, len);
	sha256_final(&ctx, hash);
}

static bool has_hex(const uint8_t hash[SHA256_HASH_SIZE], const char *hex)
{
	char text[2 * SHA256_HASH_SIZE + 1];

	for (size_t i = 0; i < SHA256_HASH_SIZE; i++)
		snprintf(text + 2 * i, 3, "%02x", hash[i]);
	return strcmp(text, hex) == 0;
}

static bool same(const uint8_t a[SHA256_HASH_SIZE], const uint8_t b[SHA256_HASH_SIZE])
{
	return memcmp(a, b, SHA256_HASH_SIZE) == 0;
}

/* ---- One message ---- */

static const struct {
	const char *message, *hash;
} vector[] = {
	{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	{"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	{"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
	 "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
	 "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};
#define VECTORS (sizeof vector / sizeof vector[0])

static void test_fips_vectors(void)
{
	uint8_t hash[SHA256_HASH_SIZE];

	FOR_EACH_IMPLEMENTATION {
		for (size_t i = 0; i < VECTORS; i++) {
			const char *text = vector[i].message;
			hash_of((const uint8_t *)text, strlen(text), hash);
			CHECK(has_hex(hash, vector[i].hash));
		}
	}
}

static void test_million(void)
{
	static uint8_t a[1000];
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	memset(a, 'a', sizeof a);
	FOR_EACH_IMPLEMENTATION {
		sha256_init(&ctx);
		for (int i = 0; i < 1000; i++)
			sha256_update(&ctx, a, sizeof a);
		sha256_final(&ctx, hash);
		CHECK(has_hex(hash, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
	}
}

/* The hashes of all beginnings of the message up to 300 bytes, one after the other, hashed. */
static void test_every_length(void)
{
	static uint8_t hashes[301][SHA256_HASH_SIZE];
	uint8_t hash[SHA256_HASH_SIZE];

	FOR_EACH_IMPLEMENTATION {
		for (size_t len = 0; len <= 300; len++)
			hash_of(message, len, hashes[len]);
		hash_of(hashes[0], sizeof hashes, hash);
		CHECK(has_hex(hash, "0ba11c02a52da25fa742e80155ee80c1e8d3317d320fd8e1e978058fb9dea5b0"));
		hash_of(message, MESSAGE_SIZE, hash);
		CHECK(has_hex(hash, "0e0b8ce4fd30f7b53878ddd956c7ea6b37e3e9d82a23d23622bcbe0f2cc7fb4f"));
	}
}

static void test_every_split(void)
{
	enum { SIZE = 200 };
	uint8_t whole[SHA256_HASH_SIZE], hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	FOR_EACH_IMPLEMENTATION {
		hash_of(message, SIZE, whole);
		for (size_t at = 0; at <= SIZE; at++) {
			sha256_init(&ctx);
			sha256_update(&ctx, message, at);
			sha256_update(&ctx, message + at, 0);
			sha256_update(&ctx, message + at, SIZE - at);
			CHECK(ctx.length == SIZE);
			sha256_final(&ctx, hash);
			CHECK(same(hash, whole));
		}
	}
}

static void test_nothing_appended(void)
{
	uint8_t hash[SHA256_HASH_SIZE], abc[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	sha256_force(NULL);
	hash_of((const uint8_t *)"abc", 3, abc);
	sha256_init(&ctx);
	sha256_update(&ctx, NULL, 0);
	sha256_update(&ctx, (const uint8_t *)"abc", 3);
	sha256_update(&ctx, NULL, 0);
	sha256_final(&ctx, hash);
	CHECK(same(hash, abc));
	sha256_init(&ctx);		/* used again, with what final left in it */
	sha256_update(&ctx, (const uint8_t *)"abc", 3);
	sha256_final(&ctx, hash);
	CHECK(same(hash, abc));
}

/* Random pieces, each of them by any of the implementations. */
static void test_random_pieces(void)
{
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	srand(42);
	for (int round = 0; round < 200; round++) {
		size_t len = (size_t)rand() % MESSAGE_SIZE, l = (size_t)round % SHA256_LANES_MAX;
		sha256_init(&ctx);
		for (size_t done = 0; done < len; ) {
			size_t piece = (size_t)rand() % (rand() % 2 == 0 ? 20 : 300);
			if (piece > len - done)
				piece = len - done;
			sha256_force(names[(size_t)rand() % NAMES]);
			sha256_update(&ctx, other[l] + done, piece);
			done += piece;
		}
		sha256_final(&ctx, hash);
		CHECK(same(hash, expected[l][len]));
	}
}

/* ---- Several messages at once ---- */

/* A part of lane l's message, moved so that it may begin at any address. */
static const uint8_t *moved(size_t l, size_t from, size_t len, size_t shift)
{
	static uint8_t space[SHA256_LANES_MAX][MESSAGE_SIZE + SHA256_BLOCK_SIZE];

	return memcpy(space[l] + shift % SHA256_BLOCK_SIZE, other[l] + from, len);
}

/* Each FIPS vector in each lane, among other messages of its length. */
static void test_fips_vectors_in_lanes(void)
{
	FOR_EACH_IMPLEMENTATION
		for (size_t v = 0; v < VECTORS; v++)
			for (size_t lanes = 1; lanes <= SHA256_LANES_MAX; lanes++)
				for (size_t mine = 0; mine < lanes; mine++) {
					SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX] = {NULL};
					uint8_t hash[SHA256_LANES_MAX][SHA256_HASH_SIZE];
					uint8_t *hashes[SHA256_LANES_MAX] = {NULL};
					const uint8_t *data[SHA256_LANES_MAX] = {NULL};
					size_t len = strlen(vector[v].message);
					for (size_t l = 0; l < lanes; l++) {
						data[l] = l == mine ? (const uint8_t *)vector[v].message
							: moved(l, 0, len, l);
						hashes[l] = hash[l];
						ctxs[l] = &ctx[l];
						sha256_init(&ctx[l]);
					}
					sha256_update_lanes(ctxs, data, len, lanes);
					sha256_final_lanes(ctxs, hashes, lanes);
					for (size_t l = 0; l < lanes; l++)
						CHECK(l == mine ? has_hex(hash[l], vector[v].hash)
								: same(hash[l], expected[l][len]));
				}
}

/* Appends `piece` bytes at once to `lanes` messages that hold before[i] bytes already, and one
 * byte more by itself at the end: so that it matters what was left pending. */
static bool lanes_agree(const size_t before[], size_t piece, size_t lanes)
{
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX] = {NULL};
	const uint8_t *data[SHA256_LANES_MAX] = {NULL};
	uint8_t hash[SHA256_HASH_SIZE];
	bool agree = true;

	for (size_t l = 0; l < lanes; l++) {
		ctxs[l] = &ctx[l];
		data[l] = moved(l, before[l], piece, l + before[l]);
		sha256_init(&ctx[l]);
		sha256_update(&ctx[l], other[l], before[l]);
	}
	sha256_update_lanes(ctxs, data, piece, lanes);
	for (size_t l = 0; l < lanes; l++) {
		size_t len = before[l] + piece;
		agree = agree && ctx[l].length == len;
		sha256_update(&ctx[l], other[l] + len, 1);
		sha256_final(&ctx[l], hash);
		agree = agree && same(hash, expected[l][len + 1]);
	}
	return agree;
}

static void test_lanes_in_different_phases(void)
{
	static const size_t step[] = {0, 1, 13}, piece[] = {0, 1, 63, 64, 65, 127, 128, 129, 300};
	size_t before[SHA256_LANES_MAX];

	FOR_EACH_IMPLEMENTATION
		for (size_t lanes = 1; lanes <= SHA256_LANES_MAX; lanes++)
			for (size_t first = 0; first < SHA256_BLOCK_SIZE; first++)
				for (size_t s = 0; s < sizeof step / sizeof step[0]; s++) {
					bool agree = true;
					for (size_t l = 0; l < lanes; l++)
						before[l] = (first + l * step[s]) % SHA256_BLOCK_SIZE;
					for (size_t p = 0; p < sizeof piece / sizeof piece[0]; p++)
						agree = agree && lanes_agree(before, piece[p], lanes);
					CHECK(agree);
				}
}

/* Each message of its own, and the result must not go to another's place, nor to one too many. */
static void test_final_lanes(void)
{
	uint8_t hash[SHA256_LANES_MAX][SHA256_HASH_SIZE], untouched[SHA256_HASH_SIZE];
	SHA256_CTX ctx[SHA256_LANES_MAX];

	memset(untouched, 0x5a, sizeof untouched);
	FOR_EACH_IMPLEMENTATION
		for (size_t len = 0; len <= 130; len++)
			for (size_t lanes = 1; lanes <= SHA256_LANES_MAX; lanes++) {
				SHA256_CTX *ctxs[SHA256_LANES_MAX] = {NULL};
				uint8_t *hashes[SHA256_LANES_MAX] = {NULL};
				memset(hash, 0x5a, sizeof hash);
				for (size_t l = 0; l < lanes; l++) {
					ctxs[l] = &ctx[l];
					hashes[l] = hash[l];
					sha256_init(&ctx[l]);
					sha256_update(&ctx[l], other[l], len);
				}
				sha256_final_lanes(ctxs, hashes, lanes);
				for (size_t l = 0; l < SHA256_LANES_MAX; l++)
					CHECK(same(hash[l], l < lanes ? expected[l][len] : untouched));
			}
}

static void test_lanes_random(void)
{
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
	uint8_t hash[SHA256_LANES_MAX][SHA256_HASH_SIZE], *hashes[SHA256_LANES_MAX];

	srand(99);
	FOR_EACH_IMPLEMENTATION
		for (size_t round = 0; round < 20 * SHA256_LANES_MAX; round++) {
			size_t lanes = 1 + round % SHA256_LANES_MAX, len = (size_t)rand() % MESSAGE_SIZE;
			for (size_t l = 0; l < lanes; l++) {
				ctxs[l] = &ctx[l];
				hashes[l] = hash[l];
				sha256_init(&ctx[l]);
			}
			for (size_t done = 0; done < len; ) {
				const uint8_t *data[SHA256_LANES_MAX];
				size_t piece = (size_t)rand() % 400;
				if (piece > len - done)
					piece = len - done;
				for (size_t l = 0; l < lanes; l++)
					data[l] = moved(l, done, piece, (size_t)rand());
				sha256_update_lanes(ctxs, data, piece, lanes);
				done += piece;
			}
			sha256_final_lanes(ctxs, hashes, lanes);
			for (size_t l = 0; l < lanes; l++)
				CHECK(same(hash[l], expected[l][len]));
		}
}

/* ---- More than 2^32 bits ---- */

/* From the state after 512 MiB of zeros on, so that no second goes by. */
static void test_long_length(void)
{
	static const uint32_t after_512_mib[8] = {
		0xc1945316, 0x0ed03e10, 0x4e1064e9, 0x2f8b0652,
		0xe52774ad, 0x065ea229, 0xc9c3c246, 0x0e0cc072};
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	FOR_EACH_IMPLEMENTATION {
		sha256_init(&ctx);
		memcpy(ctx.state, after_512_mib, sizeof ctx.state);
		ctx.length = UINT64_C(512) << 20;
		sha256_update(&ctx, zeros, 100);
		CHECK(ctx.length == (UINT64_C(512) << 20) + 100);
		sha256_final(&ctx, hash);
		CHECK(has_hex(hash, "b5e920a66e366cc320737a98fb79ccb913ae38f4cf0c03b27595cf492a695503"));
	}
}

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* All of 520 MiB, where that is quick. */
static void test_long_message(void)
{
	enum { PIECES = 520, TRIAL = 8 };
	uint8_t hash[SHA256_HASH_SIZE];
	double began = cpu_ms();
	SHA256_CTX ctx;

	sha256_force(NULL);
	sha256_init(&ctx);
	for (int i = 0; i < PIECES; i++) {
		sha256_update(&ctx, zeros, BIG_PIECE);
		if (i == TRIAL - 1 && (cpu_ms() - began) * PIECES / TRIAL > QUICK_MS) {
			unit_skip("520 MiB take too long here");
			return;
		}
	}
	sha256_final(&ctx, hash);
	CHECK(has_hex(hash, "abf51ad954b246009dfe5a50ecd582fd5b8f1b8b27f30393853c3ef721e7fa6e"));
}

/* ---- Which one ---- */

static void test_implementation(void)
{
	const char *one, *all;
	size_t lanes;

	CHECK(sha256_force("portable"));
	CHECK(strcmp(sha256_implementation(1), "portable") == 0);
	CHECK(strcmp(sha256_implementation(SHA256_LANES_MAX), "portable") == 0);
	CHECK(sha256_lanes() == 1);
	CHECK(!sha256_force("no such thing"));
	CHECK(sha256_lanes() == 1);
	if (sha256_force("AVX-512")) {
		CHECK(strcmp(sha256_implementation(1), "AVX-512") == 0);
		CHECK(sha256_lanes() == SHA256_LANES_MAX);
	}
	CHECK(sha256_force(NULL));
	one = sha256_implementation(1);
	all = sha256_implementation(SHA256_LANES_MAX);
	lanes = sha256_lanes();
	CHECK(strcmp(one, "AVX-512") != 0);	/* it is slow with idle lanes */
	CHECK(lanes >= 1 && lanes <= SHA256_LANES_MAX);
	CHECK(sha256_force(one));
	CHECK(sha256_force(all));
	CHECK(sha256_lanes() == lanes);
}

/* The very first call, before anybody has asked for an implementation. */
static void test_first_call_chooses(void)
{
	uint8_t hash[SHA256_HASH_SIZE];
	const char *chosen;

	hash_of((const uint8_t *)"abc", 3, hash);
	CHECK(has_hex(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
	chosen = sha256_implementation(1);
	sha256_force(NULL);
	CHECK(strcmp(chosen, sha256_implementation(1)) == 0);
}

/* The system has a say too: the compiler's own test asks it as well. */
static void test_avx512_is_found(void)
{
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__)) && !defined(PORTABLE)
	CHECK(sha256_force("AVX-512") ==
	      (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")));
#else
	CHECK(!sha256_force("AVX-512"));
#endif
}

/* The compressions that were timed take these, in turn; 0: as long as they do. */
static uint64_t taken_ns[16];
static size_t timed;

static int clock_gettime_for_test(clockid_t clock, struct timespec *t)
{
	static uint64_t ns;

	if (taken_ns[0] == 0)
		return clock_gettime(clock, t);
	ns += timed % 2 == 0 ? 999999000 : taken_ns[timed / 2 % LENGTH(taken_ns)];
	timed++;
	*t = (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
	return 0;
}

/* The narrow one is timed first, five times, and its best time counts; then the wide one. */
static void test_the_faster_is_chosen(void)
{
	static const struct {
		uint64_t narrow_ns, wide_ns;
		size_t from;	/* so many messages on, the wide one is chosen */
	} known[] = {
		{1600, 1600, SIZE_MAX}, {1600, 1601, SIZE_MAX}, {1600, 1599, 16}, {1600, 800, 9}, {1600, 100, 2},
		{1600, 99, 1}, {2000000000, 1000000000, 9},
	};

	for (size_t i = 0; i < LENGTH(known); i++) {
		for (size_t at = 0; at < 10; at++)
			taken_ns[at] = (at < 5 ? known[i].narrow_ns : known[i].wide_ns) +
				       (at % 5 == i % 5 ? 0 : 3000000000);
		timed = 0;
		CHECK(crossover(compress_portable, compress_portable) == known[i].from && timed == 20);
	}
	timed = 0;			/* as the last of them */
	if (sha256_force("AVX-512")) {
		CHECK(timed == 0 && sha256_force(NULL) && timed == 20);
		CHECK(strcmp(sha256_implementation(8), "AVX-512") != 0);
		CHECK(strcmp(sha256_implementation(9), "AVX-512") == 0);
		CHECK(sha256_lanes() == SHA256_LANES_MAX);
	}
	taken_ns[0] = 0;
	CHECK(sha256_force(NULL));
}

#ifdef ON_X86
static bool is_offered_without(unsigned level, unsigned which, unsigned bits, const char *name)
{
	lacking[level][which] = bits;
	bool offered = sha256_force(name), portable = sha256_force("portable");
	lacking[level][which] = 0;
	return offered || !portable;
}

/* A CPU that lacks one of the features that an implementation needs is not asked to run it. */
static void test_what_the_cpu_lacks(void)
{
	enum { A, B, C };
	bool sha = sha256_force("x86 SHA"), wide = sha256_force("AVX-512");
	unsigned a, b, c, d;

	__cpuid_count(7, 0, a, b, c, d);
	CHECK(sha == ((b & bit_SHA) != 0));	/* such a CPU has what is older, too */
	if (!sha && !wide) {
		unit_skip("this CPU has no feature that could be taken from it");
		return;
	}
	CHECK(!is_offered_without(1, C, bit_SSSE3, "x86 SHA") && !is_offered_without(1, C, bit_SSE4_1, "x86 SHA"));
	CHECK(!is_offered_without(7, B, bit_SHA, "x86 SHA"));
	CHECK(is_offered_without(7, B, bit_AVX512F, "x86 SHA") == sha);
	CHECK(!is_offered_without(7, B, bit_AVX512F, "AVX-512"));
	CHECK(!is_offered_without(7, B, bit_AVX512BW, "AVX-512"));
	CHECK(!is_offered_without(1, C, bit_OSXSAVE, "AVX-512"));
	CHECK(is_offered_without(7, B, bit_SHA, "AVX-512") == wide);
	for (cpuid_max = 0; cpuid_max < 7; cpuid_max++)
		CHECK(!sha256_force("x86 SHA") && !sha256_force("AVX-512") && sha256_force("portable"));
	CHECK(sha256_force(NULL));
}
#endif

int main(void)
{
	RUN(test_first_call_chooses);
	fill_messages();
	RUN(test_implementation);
	RUN(test_avx512_is_found);
	RUN(test_the_faster_is_chosen);
#ifdef ON_X86
	RUN(test_what_the_cpu_lacks);	/* only such a CPU is asked */
#endif
	RUN(test_fips_vectors);
	RUN(test_million);
	RUN(test_every_length);
	RUN(test_every_split);
	RUN(test_nothing_appended);
	RUN(test_random_pieces);
	RUN(test_fips_vectors_in_lanes);
	RUN(test_lanes_in_different_phases);
	RUN(test_final_lanes);
	RUN(test_lanes_random);
	RUN(test_long_length);
	RUN(test_long_message);
	return unit_result();
}
