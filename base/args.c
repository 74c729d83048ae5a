/* args.c - reading a command line. All programs use it. */
#include "base/args.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/exits.h"
#include "base/log.h"

#define VERSION "1.1"

static const char *program, *usage_text, *help_text;

void args_program(const char *name, const char *usage, const char *help)
{
	log_program(name);
	program = name;
	usage_text = usage;
	help_text = help;
}

void args_misuse(const char *format, ...)
{
	char what[1024];
	va_list args;

	if (format != NULL) {
		va_start(args, format);
		vsnprintf(what, sizeof what, format, args);
		va_end(args);
		log_warnx("%s", what);
	}
	fprintf(stderr, "%sTry '%s --help' for more.\n", usage_text, program);
	exit(EXIT_USAGE);
}

ARGS_NORETURN static void end_output(void)
{
	if (fflush(stdout) != 0)
		fatal("can't write to standard output");
	exit(EXIT_SUCCESS);
}

void args_help(void)
{
	printf("%s%s", usage_text, help_text);
	end_output();
}

void args_version(void)
{
	printf("%s %s\n", program, VERSION);
	end_output();
}

/* Reads the digits at *text, and moves *text behind them. */
static bool read_digits(const char **text, uint64_t max, uint64_t *number)
{
	const char *p = *text;
	uint64_t value = 0;

	if (!isdigit((unsigned char)*p))
		return false;
	for (; isdigit((unsigned char)*p); p++) {
		unsigned digit = (unsigned)(*p - '0');
		if (value > (max - digit) / 10 || digit > max)
			return false;
		value = value * 10 + digit;
	}
	*text = p;
	*number = value;
	return true;
}

bool args_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	uint64_t value;

	if (!read_digits(&text, max, &value) || *text != '\0' || value < min)
		return false;
	*number = value;
	return true;
}

bool args_size(const char *text, uint64_t min, uint64_t max, uint64_t *bytes)
{
	uint64_t value;
	unsigned shift = 0;

	if (!read_digits(&text, max, &value))
		return false;
	switch (*text) {
	case 'k': case 'K': shift = 10; break;
	case 'm': case 'M': shift = 20; break;
	case 'g': case 'G': shift = 30; break;
	}
	if (shift != 0)
		text++;
	if (*text != '\0' || value > max >> shift || value << shift < min)
		return false;
	*bytes = value << shift;
	return true;
}

bool args_port(const char *text, unsigned min, uint16_t *port)
{
	uint64_t value;

	if (!args_number(text, min, UINT16_MAX, &value))
		return false;
	*port = (uint16_t)value;
	return true;
}

bool args_ip(const char *text, uint32_t *ip)
{
	struct in_addr addr;

	if (inet_pton(AF_INET, text, &addr) != 1)
		return false;
	*ip = ntohl(addr.s_addr);
	return true;
}

bool args_host(const char *text)
{
	uint32_t ip;

	return text[strspn(text, "0123456789.")] != '\0' || args_ip(text, &ip);
}

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *p = strchr(digits, tolower((unsigned char)c));

	return c == '\0' || p == NULL ? -1 : (int)(p - digits);
}

bool args_hash(const char *text, uint8_t hash[SHA256_HASH_SIZE])
{
	if (strlen(text) != 2 * SHA256_HASH_SIZE)
		return false;
	for (const char *p = text; *p != '\0'; p++)
		if (hex_value(*p) < 0)
			return false;
	for (unsigned i = 0; i < SHA256_HASH_SIZE; i++)
		hash[i] = (uint8_t)(hex_value(text[2 * i]) << 4 | hex_value(text[2 * i + 1]));
	return true;
}
