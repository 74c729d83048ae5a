/* plain.c - stands in for libFuzzer: runs a fuzzer over files, then over changed copies of
 * them. It knows nothing of the code's branches.
 *
 *   FUZZER [-runs=N] [-seed=N] FILE... */
#include <string.h>

#include "fuzz.h"

#define SIZE_MAXIMUM ((size_t)4096)
#define FILES_MAX 1024

static uint8_t file[FILES_MAX][SIZE_MAXIMUM];
static size_t file_size[FILES_MAX];
static size_t files;
static uint64_t state;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void read_file(const char *path)
{
	FILE *f = fopen(path, "rb");

	if (f == NULL || files == FILES_MAX) {
		perror(path);
		exit(1);
	}
	file_size[files] = fread(file[files], 1, SIZE_MAXIMUM, f);
	fclose(f);
	files++;
}

/* Changes the bytes in some places, moves their end, or repeats a part. Returns their new size. */
static size_t change(uint8_t *bytes, size_t size)
{
	static const uint8_t special[] = {0, 1, 2, 4, 0x7f, 0x80, 0xff, '0', '9', ':', '.'};

	for (uint64_t times = next_random() % 8; times > 0; times--) {
		size_t at = size == 0 ? 0 : next_random() % size;
		switch (next_random() % 6) {
		case 0:
			if (size > 0)
				bytes[at] ^= (uint8_t)(1u << next_random() % 8);
			break;
		case 1:
			if (size > 0)
				bytes[at] = special[next_random() % sizeof special];
			break;
		case 2:
			if (size > 0)
				bytes[at] = (uint8_t)next_random();
			break;
		case 3:
			size = at;
			break;
		case 4:
			if (size < SIZE_MAXIMUM)
				bytes[size++] = (uint8_t)next_random();
			break;
		default:
			if (size > 0 && size * 2 <= SIZE_MAXIMUM) {
				memcpy(bytes + size, bytes, size);
				size *= 2;
			}
		}
	}
	return size;
}

int main(int argc, char **argv)
{
	unsigned long runs = 0;
	uint8_t bytes[SIZE_MAXIMUM];

	state = 1;
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "-runs=", 6) == 0)
			runs = strtoul(argv[i] + 6, NULL, 10);
		else if (strncmp(argv[i], "-seed=", 6) == 0)
			state = strtoul(argv[i] + 6, NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) | 1;
		else
			read_file(argv[i]);
	for (size_t i = 0; i < files; i++)
		LLVMFuzzerTestOneInput(file[i], file_size[i]);
	for (unsigned long run = 0; run < runs; run++) {
		size_t i = files == 0 ? 0 : next_random() % files, size = files == 0 ? 0 : file_size[i];
		memcpy(bytes, file[i], size);
		size = change(bytes, size);
		LLVMFuzzerTestOneInput(bytes, size);
	}
	printf("stat::number_of_executed_units: %lu\n", runs + files);
	return 0;
}
