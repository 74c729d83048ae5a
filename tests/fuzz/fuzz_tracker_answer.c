/* fuzz_tracker_answer.c - the input is what a tracker answers, in pieces: the first byte says
 * how large they are. */
#include <unistd.h>

static size_t piece;	/* bytes that read gives at most */

static ssize_t read_piece(int fd, void *to, size_t size)
{
	return read(fd, to, size < piece ? size : piece);
}
#define read read_piece

#include "net/tracker_client.c"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tracker_entry entries[TRACKER_ENTRIES_MAX];
	char why[TRACKER_WHY_SIZE] = "not set";
	int fds[2];

	if (size == 0 || size > 8192)
		return 0;
	piece = data[0] == 0 ? 8192 : data[0];
	data++;
	size--;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
		abort();
	if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ||
	    write(fds[1], data, size) != (ssize_t)size)
		abort();
	close(fds[1]);
	int count = read_answer(fds[0], clock_ms() + 1000, entries, why);
	close(fds[0]);
	if (count < 0) {
		MUST(memchr(why, '\0', sizeof why) != NULL && why[0] != '\0');
		for (const char *p = why; *p != '\0'; p++)
			MUST((unsigned char)*p >= ' ' && *p != 0x7f);
		return 0;
	}
	uint32_t length = (uint32_t)data[1] << 24 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 8 | data[4];
	MUST(size >= 5 && data[0] == 0 && length % 12 == 0 && count <= TRACKER_ENTRIES_MAX);
	MUST((uint32_t)count == (length / 12 < TRACKER_ENTRIES_MAX ? length / 12 : TRACKER_ENTRIES_MAX));
	for (int i = 0; i < count; i++) {
		const uint8_t *e = data + 5 + 12 * i;
		MUST(entries[i].address.ip >> 24 == e[0] && (entries[i].address.ip & 255) == e[3]);
		MUST(entries[i].address.port == (e[4] << 8 | e[5]) && entries[i].good == (e[10] == 1));
	}
	return 0;
}
