/* small_fetch.c - a solution of exercise 3: fetches what is missing of one file from one
 * peer, chunk by chunk, and exits with 0 when the file is complete. What is on the disk
 * is checked first, so that a fetch that was broken off goes on. */
#include "csapp.h"

#include "file/metafile.h"
#include "net/wire.h"
#include "sha256.h"

#define TRIES 5		/* connections in a row that brought no chunk */

static struct metafile meta;
static int data_fd;

/* NULL: not all of it is there. The caller frees it. */
static uint8_t *read_chunk(uint64_t chunk)
{
	size_t length = (size_t)metafile_chunk_length(&meta, chunk);
	uint8_t *bytes = Malloc(length);

	if (pread(data_fd, bytes, length, (off_t)metafile_chunk_offset(&meta, chunk)) == (ssize_t)length)
		return bytes;
	free(bytes);
	return NULL;
}

static bool is_right(uint64_t chunk, const uint8_t *bytes)
{
	uint8_t hash[SHA256_HASH_SIZE];
	const uint8_t *wanted = metafile_chunk_hash(&meta, chunk);
	SHA256_CTX context;

	sha256_init(&context);
	sha256_update(&context, bytes, (size_t)metafile_chunk_length(&meta, chunk));
	sha256_final(&context, hash);
	return wanted != NULL && memcmp(hash, wanted, sizeof hash) == 0;
}

static bool is_held(uint64_t chunk)
{
	uint8_t *bytes = read_chunk(chunk);
	bool held = bytes != NULL && is_right(chunk, bytes);

	free(bytes);
	return held;
}

static void write_chunk(uint64_t chunk, const uint8_t *bytes)
{
	size_t length = (size_t)metafile_chunk_length(&meta, chunk);

	if (pwrite(data_fd, bytes, length, (off_t)metafile_chunk_offset(&meta, chunk)) != (ssize_t)length)
		unix_error("the data file can't be written");
}

/* Asks for the chunk, and keeps it if it is right. False: this connection is of no more
 * use. A wrong chunk ends the program: nobody else can be asked. */
static bool fetch_chunk(int fd, uint64_t chunk)
{
	struct peer_request request = {.chunk = chunk};
	struct peer_response response;
	uint8_t bytes[PEER_REQUEST_SIZE], header[PEER_RESPONSE_SIZE];
	size_t length = (size_t)metafile_chunk_length(&meta, chunk);

	memcpy(request.cascade_hash, meta.cascade_hash, SHA256_HASH_SIZE);
	peer_request_encode(bytes, &request);
	if (rio_writen(fd, bytes, sizeof bytes) < 0 || rio_readn(fd, header, sizeof header) != sizeof header)
		return false;
	peer_response_decode(&response, header);
	if (response.status == PEER_NO_CHUNK_YET)
		return false;
	if (response.status != PEER_OK || response.length != length)
		app_error("the peer doesn't have this file, or doesn't keep to the protocol");
	uint8_t *chunk_bytes = Malloc(length);
	bool came = rio_readn(fd, chunk_bytes, length) == (ssize_t)length;
	if (came && !is_right(chunk, chunk_bytes))
		app_error("the peer has sent a wrong chunk");
	if (came)
		write_chunk(chunk, chunk_bytes);
	free(chunk_bytes);
	return came;
}

int main(int argc, char **argv)
{
	const char *why;
	int fd = -1, failures = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: small_fetch FILE.cascade HOST PORT\n");
		exit(2);
	}
	if (metafile_open(&meta, argv[1], &why) < 0)
		app_error(why);
	data_fd = Open(metafile_data_path(argv[1]), O_RDWR | O_CREAT, DEF_MODE);
	Signal(SIGPIPE, SIG_IGN);

	for (uint64_t chunk = 0; chunk < meta.chunks; )
		if (is_held(chunk)) {
			chunk++;
		} else if (fd < 0) {
			if (++failures > TRIES)
				app_error("the peer can't be reached, or doesn't have it all");
			if (failures > 1)
				Sleep(1);
			fd = open_clientfd(argv[2], argv[3]);
		} else if (fetch_chunk(fd, chunk)) {
			failures = 0;
		} else {
			close(fd);
			fd = -1;
		}
	if (ftruncate(data_fd, (off_t)meta.length) < 0 || close(data_fd) < 0)
		unix_error("the data file can't be written");
	return 0;
}
