/* format.c - numbers as people read them. */
#include "base/format.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

char *format_digits(char *text, uint64_t n, unsigned least)
{
	char digits[24];
	unsigned count = 0;

	for (; n > 0 || count < least; n /= 10)
		digits[count++] = (char)('0' + n % 10);
	while (count > 0)
		*text++ = digits[--count];
	return text;
}

const char *format_bytes(double bytes, char text[FORMAT_BYTES_SIZE])
{
	static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
	char *end = text;
	unsigned i = 0;

	for (; bytes >= 1024 && i + 1 < sizeof units / sizeof units[0]; i++)
		bytes /= 1024;
	bool whole = i == 0 || bytes >= 100;
	uint64_t n = (uint64_t)(bytes * (whole ? 1 : 10) + 0.5);
	end = format_digits(end, whole ? n : n / 10, 1);
	if (!whole) {
		*end++ = '.';
		end = format_digits(end, n % 10, 1);
	}
	strcpy(end, units[i]);
	return text;
}

const char *format_duration(double seconds, char text[FORMAT_DURATION_SIZE])
{
	unsigned long s = seconds < 359999 ? (unsigned long)(seconds + 0.5) : 359999;

	if (s < 3600)
		snprintf(text, FORMAT_DURATION_SIZE, "%lu:%02lu", s / 60, s % 60);
	else
		snprintf(text, FORMAT_DURATION_SIZE, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
	return text;
}

const char *format_time(int64_t seconds, char text[FORMAT_TIME_SIZE])
{
	/* Years that begin with March, in eras of 400 of them: a leap day is the last. */
	unsigned long days = (unsigned long)(seconds / 86400) + 719468, era = days / 146097;
	unsigned long day = days % 146097, of_day = (unsigned long)(seconds % 86400);
	unsigned long year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	unsigned long of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
	const unsigned long parts[] = {
		era * 400 + year + (month >= 10), month < 10 ? month + 3 : month - 9,
		of_year - (153 * month + 2) / 5 + 1, of_day / 3600, of_day / 60 % 60, of_day % 60,
	};
	char *end = text;

	for (unsigned i = 0; i < 6; i++) {
		end = format_digits(end, parts[i], i == 0 ? 4 : 2);
		*end++ = "--T::Z"[i];
	}
	*end = '\0';
	return text;
}
