/* regions.c - used by fetchers, and by the processes that serve them. */
#include "net/regions.h"

#include <string.h>

static const char word[] = " regions ";
static const char digits[] = "0123456789abcdef";

uint64_t regions_size(uint64_t chunks)
{
	return (chunks - 1) / REGIONS_MAX + 1;
}

size_t regions_count(uint64_t chunks)
{
	return (size_t)((chunks - 1) / regions_size(chunks) + 1);
}

bool region_set_has(const struct region_set *set, size_t region)
{
	return set->word[region / 64] >> region % 64 & 1;
}

void region_set_add(struct region_set *set, size_t region)
{
	set->word[region / 64] |= UINT64_C(1) << region % 64;
}

void region_set_remove(struct region_set *set, size_t region)
{
	set->word[region / 64] &= ~(UINT64_C(1) << region % 64);
}

size_t region_set_encode(char text[REGIONS_TEXT_MAX], const struct region_set *set, size_t count)
{
	size_t size = sizeof word - 1;

	memcpy(text, word, size);
	for (size_t region = 0; region < count; region += 4) {
		unsigned digit = 0;
		for (size_t i = 0; i < 4; i++)
			digit = digit << 1 | (region + i < count && region_set_has(set, region + i));
		text[size++] = digits[digit];
	}
	text[size++] = '\n';
	return size;
}

bool region_set_decode(struct region_set *set, size_t count, const char *message, size_t size)
{
	size_t needed = (count + 3) / 4, before = sizeof word - 1;
	const char *text;

	memset(set, 0, sizeof *set);
	if (size < before + needed + 1 || message[size - 1] != '\n')
		return false;
	text = message + size - 1 - needed;
	if (memcmp(text - before, word, before) != 0)
		return false;
	for (size_t region = 0; region < count; region++) {
		const char *digit = text[region / 4] != '\0' ? strchr(digits, text[region / 4]) : NULL;
		if (digit == NULL)
			return false;
		if ((digit - digits) >> (3 - region % 4) & 1)
			region_set_add(set, region);
	}
	return true;
}
