/* test_sha256.c - SHA-256 against FIPS 180-4 and against itself: the portable implementation
 * and the CPU's own, messages whole and in pieces, one at a time and in lanes.
 *
 * What is not from FIPS 180-4 was computed with another implementation (Python's hashlib). */
#include "../../sha256.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "unit.h"

#define MESSAGE_SIZE 1000
#define BIG_PIECE ((size_t)1 << 20)
#define QUICK_MS 1500		/* what the long run may take */

static uint8_t message[MESSAGE_SIZE], other[SHA256_LANES][MESSAGE_SIZE];
static uint8_t zeros[BIG_PIECE];

static const bool is_portable[] = {true, false};
#define BOTH (sizeof is_portable / sizeof is_portable[0])

static void fill_messages(void)
{
	for (size_t i = 0; i < MESSAGE_SIZE; i++)
		message[i] = (uint8_t)(i * 167 + (i >> 8) * 13 + 5);
	srand(4711);
	for (size_t l = 0; l < SHA256_LANES; l++)
		for (size_t i = 0; i < MESSAGE_SIZE; i++)
			other[l][i] = (uint8_t)(rand() >> 7);
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

static void test_fips_vectors(void)
{
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
	uint8_t hash[SHA256_HASH_SIZE];

	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
		for (size_t i = 0; i < sizeof vector / sizeof vector[0]; i++) {
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
	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
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

	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
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

	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
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

	sha256_force_portable(false);
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

/* The same random message in the same random pieces, by both implementations: they may even
 * change in the middle of it. */
static void test_random_pieces(void)
{
	uint8_t hash[3][SHA256_HASH_SIZE];
	SHA256_CTX ctx[3];

	srand(42);
	for (int round = 0; round < 500; round++) {
		size_t from = (size_t)rand() % 100, len = (size_t)rand() % (MESSAGE_SIZE - 100);
		const uint8_t *data = other[round % SHA256_LANES] + from;
		for (size_t i = 0; i < 3; i++)
			sha256_init(&ctx[i]);
		for (size_t done = 0; done < len; ) {
			size_t piece = (size_t)rand() % (rand() % 2 == 0 ? 20 : 300);
			if (piece > len - done)
				piece = len - done;
			for (size_t i = 0; i < 3; i++) {
				sha256_force_portable(i == 0 || (i == 2 && rand() % 2 == 0));
				sha256_update(&ctx[i], data + done, piece);
			}
			done += piece;
		}
		for (size_t i = 0; i < 3; i++) {
			sha256_force_portable(i == 0);
			sha256_final(&ctx[i], hash[i]);
		}
		CHECK(same(hash[0], hash[1]));
		CHECK(same(hash[0], hash[2]));
		sha256_force_portable(true);
		hash_of(data, len, hash[1]);
		CHECK(same(hash[0], hash[1]));
	}
}

/* ---- Several messages at once ---- */

/* Appends `piece` bytes at once to `lanes` messages that hold before[i] bytes already, and one
 * byte more by itself at the end: so that it matters what was left pending. */
static bool lanes_agree(const size_t before[], size_t piece, size_t lanes)
{
	SHA256_CTX ctx[SHA256_LANES], *ctxs[SHA256_LANES] = {NULL};
	const uint8_t *data[SHA256_LANES] = {NULL};
	uint8_t hash[SHA256_HASH_SIZE], alone[SHA256_HASH_SIZE];
	bool agree = true;

	for (size_t l = 0; l < lanes; l++) {
		ctxs[l] = &ctx[l];
		data[l] = other[l] + before[l];
		sha256_init(&ctx[l]);
		sha256_update(&ctx[l], other[l], before[l]);
	}
	sha256_update_lanes(ctxs, data, piece, lanes);
	for (size_t l = 0; l < lanes; l++) {
		agree = agree && ctx[l].length == before[l] + piece;
		sha256_update(&ctx[l], other[l] + before[l] + piece, 1);
		sha256_final(&ctx[l], hash);
		hash_of(other[l], before[l] + piece + 1, alone);
		agree = agree && same(hash, alone);
	}
	return agree;
}

static void test_lanes_in_different_phases(void)
{
	static const size_t second[] = {0, 1, 31, 63}, piece[] = {0, 1, 63, 64, 65, 127, 128, 200};
	bool agree = true;

	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
		for (size_t lanes = 1; lanes <= SHA256_LANES; lanes++)
			for (size_t first = 0; first < SHA256_BLOCK_SIZE; first++)
				for (size_t s = 0; s < sizeof second / sizeof second[0]; s++)
					for (size_t p = 0; p < sizeof piece / sizeof piece[0]; p++) {
						const size_t before[] = {
							first, second[s], (first + second[s] + 13) % 64};
						agree = agree && lanes_agree(before, piece[p], lanes);
					}
		CHECK(agree);
	}
}

/* Each message of its own, and the result must not go to another's place, nor to one too many. */
static void test_final_lanes(void)
{
	uint8_t hash[SHA256_LANES][SHA256_HASH_SIZE], alone[SHA256_HASH_SIZE];
	uint8_t untouched[SHA256_HASH_SIZE];
	SHA256_CTX ctx[SHA256_LANES];

	memset(untouched, 0x5a, sizeof untouched);
	for (size_t b = 0; b < BOTH; b++)
		for (size_t len = 0; len <= 130; len++)
			for (size_t lanes = 1; lanes <= SHA256_LANES; lanes++) {
				SHA256_CTX *ctxs[SHA256_LANES] = {NULL};
				uint8_t *hashes[SHA256_LANES] = {NULL};
				sha256_force_portable(is_portable[b]);
				memset(hash, 0x5a, sizeof hash);
				for (size_t l = 0; l < lanes; l++) {
					ctxs[l] = &ctx[l];
					hashes[l] = hash[l];
					sha256_init(&ctx[l]);
					sha256_update(&ctx[l], other[l], len);
				}
				sha256_final_lanes(ctxs, hashes, lanes);
				sha256_force_portable(true);
				for (size_t l = 0; l < SHA256_LANES; l++) {
					hash_of(other[l], len, alone);
					CHECK(same(hash[l], l < lanes ? alone : untouched));
				}
			}
}

static void test_lanes_random(void)
{
	SHA256_CTX ctx[SHA256_LANES], *ctxs[SHA256_LANES];
	uint8_t hash[SHA256_LANES][SHA256_HASH_SIZE], *hashes[SHA256_LANES];
	uint8_t alone[SHA256_HASH_SIZE];

	srand(99);
	for (int round = 0; round < 300; round++) {
		size_t lanes = 1 + (size_t)rand() % SHA256_LANES, len = (size_t)rand() % MESSAGE_SIZE;
		sha256_force_portable(round % 2 == 0);
		for (size_t l = 0; l < lanes; l++) {
			ctxs[l] = &ctx[l];
			hashes[l] = hash[l];
			sha256_init(&ctx[l]);
		}
		for (size_t done = 0; done < len; ) {
			const uint8_t *data[SHA256_LANES];
			size_t piece = (size_t)rand() % 400;
			if (piece > len - done)
				piece = len - done;
			for (size_t l = 0; l < lanes; l++)
				data[l] = other[l] + done;
			sha256_update_lanes(ctxs, data, piece, lanes);
			done += piece;
		}
		sha256_final_lanes(ctxs, hashes, lanes);
		sha256_force_portable(true);
		for (size_t l = 0; l < lanes; l++) {
			hash_of(other[l], len, alone);
			CHECK(same(hash[l], alone));
		}
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

	for (size_t b = 0; b < BOTH; b++) {
		sha256_force_portable(is_portable[b]);
		sha256_init(&ctx);
		memcpy(ctx.state, after_512_mib, sizeof ctx.state);
		ctx.length = UINT64_C(512) << 20;
		sha256_update(&ctx, zeros, 100);
		CHECK(ctx.length == (UINT64_C(512) << 20) + 100);
		sha256_final(&ctx, hash);
		CHECK(has_hex(hash, "b5e920a66e366cc320737a98fb79ccb913ae38f4cf0c03b27595cf492a695503"));
	}
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* All of 520 MiB, where that is quick. */
static void test_long_message(void)
{
	enum { PIECES = 520, TRIAL = 8 };
	uint8_t hash[SHA256_HASH_SIZE];
	double began = now_ms();
	SHA256_CTX ctx;

	sha256_force_portable(false);
	sha256_init(&ctx);
	for (int i = 0; i < PIECES; i++) {
		sha256_update(&ctx, zeros, BIG_PIECE);
		if (i == TRIAL - 1 && (now_ms() - began) * PIECES / TRIAL > QUICK_MS) {
			printf("skip test_long_message: 520 MiB take too long here\n");
			return;
		}
	}
	sha256_final(&ctx, hash);
	CHECK(has_hex(hash, "abf51ad954b246009dfe5a50ecd582fd5b8f1b8b27f30393853c3ef721e7fa6e"));
}

/* ---- Which one ---- */

static void test_implementation(void)
{
	static const char *const name[] = {"x86 SHA", "ARMv8 SHA2", "portable"};
	const char *fastest;
	bool known = false;

	sha256_force_portable(true);
	CHECK(strcmp(sha256_implementation(), "portable") == 0);
	sha256_force_portable(false);
	fastest = sha256_implementation();
	for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
		known = known || strcmp(fastest, name[i]) == 0;
	CHECK(known);
	CHECK(strcmp(sha256_implementation(), fastest) == 0);
}

/* The very first call, before anybody has asked for an implementation. */
static void test_first_call_chooses(void)
{
	uint8_t hash[SHA256_HASH_SIZE];
	const char *chosen;

	hash_of((const uint8_t *)"abc", 3, hash);
	CHECK(has_hex(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
	chosen = sha256_implementation();
	sha256_force_portable(false);
	CHECK(strcmp(chosen, sha256_implementation()) == 0);
}

int main(void)
{
	fill_messages();
	RUN(test_first_call_chooses);
	RUN(test_implementation);
	RUN(test_fips_vectors);
	RUN(test_million);
	RUN(test_every_length);
	RUN(test_every_split);
	RUN(test_nothing_appended);
	RUN(test_random_pieces);
	RUN(test_lanes_in_different_phases);
	RUN(test_final_lanes);
	RUN(test_lanes_random);
	RUN(test_long_length);
	RUN(test_long_message);
	return unit_result();
}
