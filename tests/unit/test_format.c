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
	CHECK(bytes_are(1126, "1.1 KiB"));
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

static bool time_is(int64_t seconds, const char *expected)
{
	char text[FORMAT_TIME_SIZE];

	return format_time(seconds, text) == text && strcmp(text, expected) == 0;
}

static void test_times(void)
{
	CHECK(time_is(0, "1970-01-01T00:00:00Z"));
	CHECK(time_is(951782399, "2000-02-28T23:59:59Z"));
	CHECK(time_is(951782400, "2000-02-29T00:00:00Z"));
	CHECK(time_is(951868800, "2000-03-01T00:00:00Z"));
	CHECK(time_is(1767225599, "2025-12-31T23:59:59Z"));
	CHECK(time_is(INT64_C(4107542400), "2100-03-01T00:00:00Z"));
}

int main(void)
{
	RUN(test_bytes);
	RUN(test_durations);
	RUN(test_times);
	return unit_result();
}
