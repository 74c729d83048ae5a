/* fuzz_peer_request.c - the input is a peer's client: the first byte chooses --verify-on-send
 * and how large the pieces are in which they are read; the rest are its bytes. What it is
 * answered is compared, byte for byte, with what PROTOCOL.md says. */
#include <sys/socket.h>
#include <sys/types.h>

static size_t piece_size;	/* bytes that recv gives at most */

static ssize_t recv_piece(int fd, void *to, size_t size, int flags)
{
	return recv(fd, to, size < piece_size ? size : piece_size, flags);
}
#define recv recv_piece

#include "serve/serve_client.c"

#include "fuzz.h"

enum { CHUNKS = 5, CHUNK_SIZE = 100, LENGTH = 430, NOT_HELD = 3 };	/* the last chunk has 30 bytes */

static struct datafile shared;
static uint8_t bytes[LENGTH];
static char path[] = "/tmp/cascade-fuzz.XXXXXX", meta_path[sizeof path + 8];

static void remove_files(void)
{
	unlink(path);
	unlink(meta_path);
}

static void nothing(void *arg, uint64_t n)
{
	(void)arg;
	(void)n;
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0)
		abort();
}

static void set_up(void)
{
	uint8_t meta[64 + 32 * CHUNKS];
	SHA256_CTX ctx;
	int fd = mkstemp(path);

	if (fd < 0)
		abort();
	close(fd);
	snprintf(meta_path, sizeof meta_path, "%s.cascade", path);
	atexit(remove_files);
	for (size_t i = 0; i < LENGTH; i++)
		bytes[i] = (uint8_t)(i * 37 + i / 256);
	sha256_init(&ctx);
	sha256_update(&ctx, bytes, LENGTH);
	sha256_final(&ctx, meta + 32);
	metafile_encode_header(meta, LENGTH, CHUNK_SIZE, meta + 32);
	for (size_t chunk = 0; chunk < CHUNKS; chunk++) {
		size_t left = LENGTH - chunk * CHUNK_SIZE;
		sha256_init(&ctx);
		sha256_update(&ctx, bytes + chunk * CHUNK_SIZE, left < CHUNK_SIZE ? left : CHUNK_SIZE);
		sha256_final(&ctx, meta + 64 + 32 * chunk);
	}
	write_file(meta_path, meta, sizeof meta);
	bytes[NOT_HELD * CHUNK_SIZE]++;
	write_file(path, bytes, LENGTH);
	if (datafile_open(&shared, meta_path, path) < 0 || datafile_check(&shared, 1, false, nothing) < 0 ||
	    held_count(shared.held) != CHUNKS - 1)
		abort();
}

/* Takes the answer of that status at the beginning of what came: a chunk exactly, or a message. */
static void take_answer(const uint8_t **got, size_t *size, uint8_t status, uint64_t chunk)
{
	MUST(*size >= 9 && (*got)[0] == status);
	uint64_t length = be64(*got + 1);
	MUST(length <= *size - 9);
	if (status == 0) {
		MUST(length == (chunk == CHUNKS - 1 ? LENGTH % CHUNK_SIZE : CHUNK_SIZE));
		MUST(memcmp(*got + 9, bytes + chunk * CHUNK_SIZE, length) == 0);
	} else {
		MUST(length > 1 && (*got)[9 + length - 1] == '\n');
	}
	*got += 9 + length;
	*size -= 9 + length;
}

/* Compares the answers with the requests. */
static void check_answers(const uint8_t *sent, size_t size, const uint8_t *got, size_t got_size)
{
	for (; size > 0; sent += 64, size -= 64) {
		size_t known = size < 8 ? size : 8;
		uint8_t status = 0;
		if (memcmp(sent, "CASCADE1", known) != 0 || size < 64)
			status = 4;
		else if (memcmp(sent + 32, shared.meta.cascade_hash, 32) != 0)
			status = 1;
		else if (be64(sent + 24) >= CHUNKS)
			status = 3;
		else if (be64(sent + 24) == NOT_HELD)
			status = 2;
		take_answer(&got, &got_size, status, status == 0 ? be64(sent + 24) : 0);
		if (status != 0 && status != 2)
			break;
	}
	MUST(got_size == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t got[65536];
	size_t got_size = 0;
	int fds[2];
	ssize_t n;

	if (shared.path == NULL)
		set_up();
	if (size == 0 || size > 4097)
		return 0;
	struct client_context context = {.files = &shared, .count = 1, .verify = data[0] & 1};
	piece_size = data[0] >> 1 == 0 ? 4096 : data[0] >> 1;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
		abort();
	if (send(fds[1], data + 1, size - 1, 0) != (ssize_t)size - 1 || shutdown(fds[1], SHUT_WR) < 0)
		abort();
	serve_client(fds[0], &context);
	close(fds[0]);
	while ((n = read(fds[1], got + got_size, sizeof got - got_size)) > 0)
		got_size += (size_t)n;
	close(fds[1]);
	MUST(n == 0);
	check_answers(data + 1, size - 1, got, got_size);
	return 0;
}
