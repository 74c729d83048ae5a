/* test_args.c - what is a number, a size, a port, an address and a hash on a command line, and
 * what is none: then the result stays as it was. */
#include "base/args.h"

#include <string.h>

#include "unit.h"

#define UNTOUCHED UINT64_C(0x5a5a5a5a5a5a5a5a)

struct number_case {
	const char *text;
	uint64_t min, max;
	bool good;
	uint64_t value;		/* if it is good */
};

static bool behaves(bool (*read)(const char *, uint64_t, uint64_t, uint64_t *),
		    const struct number_case *c)
{
	uint64_t value = UNTOUCHED;
	bool good = read(c->text, c->min, c->max, &value);

	if (good == c->good && value == (c->good ? c->value : UNTOUCHED))
		return true;
	fprintf(stderr, "\"%s\" from %llu to %llu: %s, %llu\n", c->text, (unsigned long long)c->min,
		(unsigned long long)c->max, good ? "good" : "bad", (unsigned long long)value);
	return false;
}

/* What no reader of numbers takes, whatever the range. */
static const char *const no_number[] = {
	"", " ", "1 ", " 1", "\t1", "1\n", "+1", "-1", "-0", "--1", "0x10", "1x", "x1", "1.0", "1e3",
	"1,000", "1_000", "a", "\xd9\xa1", "1\xff", "18446744073709551616", "18446744073709551619",
	"18446744073709551620", "99999999999999999999", "184467440737095516150",
	"340282366920938463463374607431768211456",
};

static void test_numbers(void)
{
	static const struct number_case number[] = {
		{"0", 0, 0, true, 0},
		{"0", 0, UINT64_MAX, true, 0},
		{"1", 0, 0, false, 0},
		{"0", 1, 9, false, 0},
		{"1", 1, 9, true, 1},
		{"9", 1, 9, true, 9},
		{"10", 1, 9, false, 0},
		{"7", 0, 5, false, 0},
		{"5", 0, 5, true, 5},
		{"5", 5, 5, true, 5},
		{"4", 5, 5, false, 0},
		{"6", 5, 5, false, 0},
		{"007", 1, 9, true, 7},
		{"0000000000000000000000000000000000001", 0, 1, true, 1},
		{"255", 0, 255, true, 255},
		{"256", 0, 255, false, 0},
		{"260", 0, 255, false, 0},
		{"2550", 0, 255, false, 0},
		{"18446744073709551615", 0, UINT64_MAX, true, UINT64_MAX},
		{"18446744073709551614", 0, UINT64_MAX, true, UINT64_MAX - 1},
		{"18446744073709551615", UINT64_MAX, UINT64_MAX, true, UINT64_MAX},
		{"18446744073709551614", UINT64_MAX, UINT64_MAX, false, 0},
		{"18446744073709551615", 0, UINT64_MAX - 1, false, 0},
		{"9223372036854775807", 0, INT64_MAX, true, INT64_MAX},
		{"9223372036854775808", 0, INT64_MAX, false, 0},
		{"1K", 0, UINT64_MAX, false, 0},
		{"1", 9, 1, false, 0},	/* nothing is in an empty range */
	};

	for (size_t i = 0; i < LENGTH(number); i++)
		CHECK(behaves(args_number, &number[i]));
	for (size_t i = 0; i < LENGTH(no_number); i++)
		CHECK(behaves(args_number, &(struct number_case){no_number[i], 0, UINT64_MAX, false, 0}));
}

static void test_number_edges(void)
{
	/* Around every maximum up to 300, all numbers that could be mistaken. */
	for (uint64_t max = 0; max <= 300; max++)
		for (uint64_t n = 0; n <= 320; n++) {
			char text[8];
			uint64_t value = UNTOUCHED;
			snprintf(text, sizeof text, "%u", (unsigned)n);
			bool good = args_number(text, 0, max, &value);
			if (!CHECK(good == (n <= max) && value == (good ? n : UNTOUCHED)))
				return;
		}
}

static void test_sizes(void)
{
	static const struct number_case size[] = {
		{"0", 0, 9, true, 0},
		{"0K", 0, 9, true, 0},
		{"0", 1, 9, false, 0},
		{"0G", 1, UINT64_MAX, false, 0},
		{"1", 1, 9, true, 1},
		{"1023", 0, UINT64_MAX, true, 1023},
		{"1K", 0, UINT64_MAX, true, 1024},
		{"1k", 0, UINT64_MAX, true, 1024},
		{"3M", 0, UINT64_MAX, true, 3145728},
		{"3m", 0, UINT64_MAX, true, 3145728},
		{"2G", 0, UINT64_MAX, true, UINT64_C(2147483648)},
		{"2g", 0, UINT64_MAX, true, UINT64_C(2147483648)},
		{"010K", 0, UINT64_MAX, true, 10240},
		{"1K", 1024, 1024, true, 1024},
		{"1K", 0, 1023, false, 0},
		{"1K", 1025, UINT64_MAX, false, 0},
		{"1024", 1024, 1024, true, 1024},
		{"2K", 0, 2047, false, 0},
		{"1M", 0, 1048575, false, 0},
		{"1M", 0, 1048576, true, 1048576},
		{"17179869183G", 0, UINT64_MAX, true, UINT64_C(17179869183) << 30},
		{"17179869184G", 0, UINT64_MAX, false, 0},		/* 2^64 */
		{"17179869185G", 0, UINT64_MAX, false, 0},		/* would be 1G */
		{"17592186044415M", 0, UINT64_MAX, true, UINT64_C(17592186044415) << 20},
		{"17592186044416M", 0, UINT64_MAX, false, 0},
		{"18014398509481983K", 0, UINT64_MAX, true, UINT64_C(18014398509481983) << 10},
		{"18014398509481984K", 0, UINT64_MAX, false, 0},
		{"18446744073709551615", 0, UINT64_MAX, true, UINT64_MAX},
		{"18446744073709551615K", 0, UINT64_MAX, false, 0},
		{"8589934592G", 0, INT64_MAX, false, 0},		/* 2^63 */
		{"8589934591G", 0, INT64_MAX, true, UINT64_C(8589934591) << 30},
		{"K", 0, UINT64_MAX, false, 0},
		{"1T", 0, UINT64_MAX, false, 0},
		{"1B", 0, UINT64_MAX, false, 0},
		{"1KB", 0, UINT64_MAX, false, 0},
		{"1KiB", 0, UINT64_MAX, false, 0},
		{"1KK", 0, UINT64_MAX, false, 0},
		{"1K1", 0, UINT64_MAX, false, 0},
		{"1 K", 0, UINT64_MAX, false, 0},
		{"1K ", 0, UINT64_MAX, false, 0},
		{"-1K", 0, UINT64_MAX, false, 0},
	};

	for (size_t i = 0; i < LENGTH(size); i++)
		CHECK(behaves(args_size, &size[i]));
	for (size_t i = 0; i < LENGTH(no_number); i++)
		CHECK(behaves(args_size, &(struct number_case){no_number[i], 0, UINT64_MAX, false, 0}));
}

static void test_ports(void)
{
	static const struct {
		const char *text;
		unsigned min;
		bool good;
		uint16_t port;
	} ports[] = {
		{"0", 0, true, 0}, {"0", 1, false, 0}, {"1", 1, true, 1}, {"8888", 1, true, 8888},
		{"65535", 0, true, 65535}, {"65535", 1, true, 65535}, {"65536", 0, false, 0},
		{"65537", 1, false, 0}, {"70000", 0, false, 0}, {"131072", 0, false, 0},
		{"4294967297", 1, false, 0}, {"-1", 0, false, 0}, {"1K", 0, false, 0}, {"080", 1, true, 80},
		{"http", 0, false, 0},
	};

	for (size_t i = 0; i < LENGTH(ports); i++) {
		uint16_t port = 0x5a5a;
		CHECK(args_port(ports[i].text, ports[i].min, &port) == ports[i].good);
		CHECK(port == (ports[i].good ? ports[i].port : 0x5a5a));
	}
	for (size_t i = 0; i < LENGTH(no_number); i++) {
		uint16_t port = 0x5a5a;
		CHECK(!args_port(no_number[i], 0, &port) && port == 0x5a5a);
	}
}

static void test_ips(void)
{
	static const struct {
		const char *text;
		uint32_t ip;
	} good[] = {
		{"0.0.0.0", 0}, {"127.0.0.1", 0x7f000001}, {"1.2.3.4", 0x01020304},
		{"192.168.100.200", 0xc0a864c8}, {"255.255.255.255", 0xffffffff},
	};
	static const char *const bad[] = {
		"", " ", "1", "1.2", "1.2.3", "1.2.3.", "1.2.3.4.", "1.2.3.4.5", ".1.2.3.4", "1..3.4",
		"256.0.0.1", "1.2.3.256", "1.2.3.999", "1.2.3.-4", "1.2.3.+4", "1.2.3.4 ", " 1.2.3.4",
		"1.2.3. 4", "1.2.3.4:80", "0x1.2.3.4", "1.2.3.a", "127.1", "2130706433", "::1",
		"::ffff:1.2.3.4", "localhost", "1.2.3.4\n", "1.2.3.0004", "4294967296.0.0.0",
	};

	for (size_t i = 0; i < LENGTH(good); i++) {
		uint32_t ip = 0x5a5a5a5a;
		CHECK(args_ip(good[i].text, &ip) && ip == good[i].ip);
	}
	for (size_t i = 0; i < LENGTH(bad); i++) {
		uint32_t ip = 0x5a5a5a5a;
		CHECK(!args_ip(bad[i], &ip) && ip == 0x5a5a5a5a);
	}
}

static void test_hosts(void)
{
	static const char *const good[] = {
		"0.0.0.0", "127.0.0.1", "255.255.255.255", "localhost", "a", "tracker.example.org", "1.2.3.a",
		"a.1.2.3", "4chan.org", "0x7f.1", "1.2.3.4x",
	};
	static const char *const bad[] = {
		"", "1", "1.2", "1.2.3", "1.2.3.", "1.2.3.4.", ".1.2.3.4", "1..2.3", "1.2.3.4.5", "256.0.0.1",
		"300.1.1.1", "1.2.3.256", "2130706433", ".", "....",
	};

	for (size_t i = 0; i < LENGTH(good); i++)
		CHECK(args_host(good[i]));
	for (size_t i = 0; i < LENGTH(bad); i++)
		CHECK(!args_host(bad[i]));
}

#define DIGITS_62 "00112233445566778899aabbccddeeffFFEEDDCCBBAA998877665544332211"

static void test_hashes(void)
{
	static const uint8_t bytes[SHA256_HASH_SIZE] = {
		0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
		0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xa5};
	static const char *const bad[] = {
		"", "a", "a5", DIGITS_62, DIGITS_62 "a", DIGITS_62 "a5a", DIGITS_62 "a5a5", DIGITS_62 "a5 ",
		DIGITS_62 "a5\n", " " DIGITS_62 "a", DIGITS_62 "a ", DIGITS_62 " 5", DIGITS_62 "g5",
		DIGITS_62 "aG", DIGITS_62 "-5", DIGITS_62 "a/", DIGITS_62 "a:", DIGITS_62 "a@", DIGITS_62 "a`",
		DIGITS_62 "a\xff", "0x" DIGITS_62, "+-" DIGITS_62, "zz" DIGITS_62,
	};
	uint8_t hash[SHA256_HASH_SIZE], untouched[SHA256_HASH_SIZE];

	CHECK(args_hash(DIGITS_62 "a5", hash) && memcmp(hash, bytes, sizeof hash) == 0);
	memset(hash, 0, sizeof hash);
	CHECK(args_hash(DIGITS_62 "A5", hash) && memcmp(hash, bytes, sizeof hash) == 0);
	memset(untouched, 0x5a, sizeof untouched);
	memset(hash, 0x5a, sizeof hash);
	for (size_t i = 0; i < LENGTH(bad); i++)
		CHECK(!args_hash(bad[i], hash) && memcmp(hash, untouched, sizeof hash) == 0);
}

/* Every character as the last one: a digit or not. */
static void test_hash_digits(void)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	char text[] = DIGITS_62 "0?";

	for (int c = 1; c < 256; c++) {
		uint8_t hash[SHA256_HASH_SIZE] = {0};
		const char *digit = strchr(digits, c);
		text[63] = (char)c;
		CHECK(args_hash(text, hash) == (digit != NULL));
		CHECK(hash[31] == (digit != NULL ? (digit - digits) % 16 : 0));
	}
}

int main(void)
{
	RUN(test_numbers);
	RUN(test_number_edges);
	RUN(test_sizes);
	RUN(test_ports);
	RUN(test_ips);
	RUN(test_hosts);
	RUN(test_hashes);
	RUN(test_hash_digits);
	return unit_result();
}
