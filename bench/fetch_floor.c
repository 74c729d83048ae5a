/* fetch_floor.c - what a download can't do without, one part after the other,
 * and the download that one would write first. Fetching is measured against
 * them by bench.py.
 *
 *   fetch_floor send PORT FILE               sendfile FILE to each client in turn
 *   fetch_floor receive PORT                 receive until the end, and keep nothing
 *   fetch_floor write PORT OUT               receive, and write into a new file
 *   fetch_floor loop PORT OUT FILE.cascade   the obvious loop: receive, hash, write, in
 *                                            turn, in one process; compare each chunk
 *   fetch_floor hash SIZE one|lanes          hash so many bytes of memory, as one stream
 *                                            or as many as this CPU does best at once
 *   fetch_floor touch SIZE                   use so much memory, and end
 *
 * The sender knows no chunks and no requests: it sends the file as one stream.
 * All of it is loopback. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "csapp.h"
#include "file/metafile.h"
#include "sha256.h"
#include "loopback.h"

#define PIECE_SIZE ((size_t)256 << 10)	/* received at a time */
#define LANE_SIZE ((size_t)32 << 10)	/* hashed at a time; all lanes' stay in a near cache */

static uint8_t piece[PIECE_SIZE];

static int connect_to(const char *port)
{
	struct sockaddr_in sa = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		die("connect");
	return fd;
}

static int create(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);

	if (fd < 0)
		die(path);
	return fd;
}

/* Receives one piece, of max bytes at most. 0 at the end. */
static size_t receive_piece(int fd, size_t max)
{
	ssize_t n = recv(fd, piece, max < PIECE_SIZE ? max : PIECE_SIZE, 0);

	if (n < 0)
		die("recv");
	return (size_t)n;
}

static void write_piece(int out, size_t size)
{
	if (rio_writen(out, piece, size) < 0)
		die("write");
}

/* With out -1 nothing is written. */
static void receive_all(int fd, int out)
{
	size_t n;

	while ((n = receive_piece(fd, PIECE_SIZE)) > 0)
		if (out >= 0)
			write_piece(out, n);
}

/* The pieces are hashed and written while they are in the cache: nobody's loop
 * would be faster that does one after the other. */
static void receive_chunk(int fd, int out, struct metafile *m, uint64_t chunk)
{
	uint64_t left = metafile_chunk_length(m, chunk);
	const uint8_t *right = metafile_chunk_hash(m, chunk);
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	sha256_init(&ctx);
	while (left > 0) {
		size_t n = receive_piece(fd, left < PIECE_SIZE ? (size_t)left : PIECE_SIZE);
		if (n == 0) {
			fputs("the stream has ended too soon\n", stderr);
			exit(EXIT_FAILURE);
		}
		sha256_update(&ctx, piece, n);
		write_piece(out, n);
		left -= n;
	}
	sha256_final(&ctx, hash);
	if (right == NULL || memcmp(hash, right, sizeof hash) != 0) {
		fputs("a chunk is wrong\n", stderr);
		exit(EXIT_FAILURE);
	}
}

static void obvious_loop(int fd, int out, const char *metafile)
{
	struct metafile m;
	const char *why;

	if (metafile_open(&m, metafile, &why) < 0) {
		fprintf(stderr, "%s: %s\n", metafile, why);
		exit(EXIT_FAILURE);
	}
	for (uint64_t chunk = 0; chunk < m.chunks; chunk++)
		receive_chunk(fd, out, &m, chunk);
}

static void hash_memory(uint64_t size, size_t lanes)
{
	static uint8_t memory[SHA256_LANES_MAX][LANE_SIZE], hash[SHA256_LANES_MAX][SHA256_HASH_SIZE];
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
	const uint8_t *data[SHA256_LANES_MAX];
	uint8_t *hashes[SHA256_LANES_MAX];

	for (size_t i = 0; i < lanes; i++) {
		ctxs[i] = &ctx[i];
		data[i] = memory[i];
		hashes[i] = hash[i];
		sha256_init(ctxs[i]);
	}
	for (uint64_t done = 0; done < size; done += LANE_SIZE * lanes)
		sha256_update_lanes(ctxs, data, LANE_SIZE, lanes);
	sha256_final_lanes(ctxs, hashes, lanes);
}

/* Each page at least, so that the system has them at hand for the next program. */
static void touch_memory(size_t size)
{
	volatile uint8_t *memory = malloc(size);

	if (memory == NULL)
		die("malloc");
	for (size_t at = 0; at < size; at += 4096)
		memory[at] = 1;
}

int main(int argc, char **argv)
{
	const char *what = argc < 3 ? "" : argv[1];

	if (argc == 4 && strcmp(what, "send") == 0) {
		send_file(listen_on(argv[2]), argv[3], false);
	} else if (argc == 3 && strcmp(what, "receive") == 0) {
		receive_all(connect_to(argv[2]), -1);
	} else if (argc == 4 && strcmp(what, "write") == 0) {
		receive_all(connect_to(argv[2]), create(argv[3]));
	} else if (argc == 5 && strcmp(what, "loop") == 0) {
		obvious_loop(connect_to(argv[2]), create(argv[3]), argv[4]);
	} else if (argc == 4 && strcmp(what, "hash") == 0) {
		hash_memory(strtoull(argv[2], NULL, 10), strcmp(argv[3], "one") == 0 ? 1 : sha256_lanes());
	} else if (argc == 3 && strcmp(what, "touch") == 0) {
		touch_memory((size_t)strtoull(argv[2], NULL, 10));
	} else {
		fputs("usage: fetch_floor send PORT FILE\n"
		      "       fetch_floor receive PORT\n"
		      "       fetch_floor write PORT OUT\n"
		      "       fetch_floor loop PORT OUT FILE.cascade\n"
		      "       fetch_floor hash SIZE one|lanes\n"
		      "       fetch_floor touch SIZE\n", stderr);
		return 2;
	}
	return EXIT_SUCCESS;
}
