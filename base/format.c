/* format.c - numbers as people read them. */
#include "base/format.h"

#include <stdio.h>

const char *format_bytes(double bytes, char text[FORMAT_BYTES_SIZE])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned i = 0;

	for (; bytes >= 1024 && i + 1 < sizeof units / sizeof units[0]; i++)
		bytes /= 1024;
	snprintf(text, FORMAT_BYTES_SIZE, i == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes, units[i]);
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
