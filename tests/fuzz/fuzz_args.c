/* fuzz_args.c - the input is a word of a command line: what is a number, a size, a port, an
 * address, a host and a hash, against definitions written down once more. */
#include "fuzz.h"

#include <string.h>

#include "base/args.h"

/* The digits' value, 2^64 if it is greater than any that counts. Moves *p behind them. */
static bool digits(const char **p, long double *value)
{
	const char *begin = *p;

	for (*value = 0; **p >= '0' && **p <= '9'; ++*p)
		*value = *value * 10 + (**p - '0');
	return *p > begin;
}

static void check_number(const char *text, uint64_t min, uint64_t max)
{
	const char *p = text;
	uint64_t got = 7;
	long double value;	/* exact up to 2^64 where it matters */
	bool right = digits(&p, &value) && *p == '\0' && value >= (long double)min && value <= (long double)max;

	MUST(args_number(text, min, max, &got) == right);
	MUST(right ? (long double)got == value : got == 7);
}

static void check_size(const char *text, uint64_t min, uint64_t max)
{
	const char *p = text, *units = "kKmMgG", *unit;
	uint64_t got = 7;
	long double value;
	bool right = digits(&p, &value);

	if (right && *p != '\0' && (unit = strchr(units, *p)) != NULL) {
		for (long i = 0; i <= (unit - units) / 2; i++)
			value *= 1024;
		p++;
	}
	right = right && *p == '\0' && value >= (long double)min && value <= (long double)max;
	MUST(args_size(text, min, max, &got) == right);
	MUST(right ? (long double)got == value : got == 7);
}

static void check_ip(const char *text)
{
	const char *p = text;
	uint32_t got = 7, ip = 0;
	bool right = true;

	for (int i = 0; i < 4 && right; i++) {
		const char *begin = p;
		long double value;
		right = digits(&p, &value) && value <= 255 && (*begin != '0' || p == begin + 1) &&
			*p++ == (i < 3 ? '.' : '\0');
		ip = right ? ip << 8 | (uint32_t)value : ip;
	}
	MUST(args_ip(text, &got) == right);
	MUST(got == (right ? ip : 7));
	MUST(args_host(text) == (right || text[strspn(text, "0123456789.")] != '\0'));
}

static void check_hash(const char *text)
{
	uint8_t hash[SHA256_HASH_SIZE];
	char again[2 * SHA256_HASH_SIZE + 1];
	bool right = strlen(text) == 64 && strspn(text, "0123456789abcdefABCDEF") == 64;

	MUST(args_hash(text, hash) == right);
	for (int i = 0; right && i < 2 * SHA256_HASH_SIZE; i++) {
		again[i] = "0123456789abcdef"[hash[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15];
		MUST(again[i] == (text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	uint16_t port = 7;

	if (text == NULL)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	check_number(text, 0, UINT64_MAX);
	check_number(text, 1, 65536);
	check_size(text, 1, INT64_MAX);
	check_size(text, 1024, UINT64_C(1) << 40);
	bool is_port = args_port(text, 1, &port);
	MUST(is_port ? port > 0 : port == 7);
	check_ip(text);
	check_hash(text);
	free(text);
	return 0;
}
