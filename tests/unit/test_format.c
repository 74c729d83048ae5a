/* test_format.c - numbers as people read them. */
#include "base/format.h"

#include <string.h>

#include "unit.h"

static bool bytes_are(double bytes, const char *expected)
{
	char text[FORMAT_BYTES_SIZE];

	return format_bytes(bytes, text) == text && strcmp(text, expected) == 0;
}

static void test_bytes(void)
{
	CHECK(bytes_are(0, "0 B"));
	CHECK(bytes_are(1023, "1023 B"));
	CHECK(bytes_are(1024, "1.0 KiB"));
	CHECK(bytes_are(1.5 * (1 << 30), "1.5 GiB"));
	CHECK(bytes_are(100.0 * (1 << 20), "100 MiB"));
	CHECK(bytes_are(18446744073709551615.0, "16.0 EiB"));
}

static bool duration_is(double seconds, const char *expected)
{
	char text[FORMAT_DURATION_SIZE];

	return format_duration(seconds, text) == text && strcmp(text, expected) == 0;
}

static void test_durations(void)
{
	CHECK(duration_is(0, "0:00"));
	CHECK(duration_is(59.6, "1:00"));
	CHECK(duration_is(125, "2:05"));
	CHECK(duration_is(3725, "1:02:05"));
	CHECK(duration_is(1e30, "99:59:59"));
}

int main(void)
{
	RUN(test_bytes);
	RUN(test_durations);
	return unit_result();
}
