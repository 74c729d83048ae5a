/* fork_peer.c - a solution of exercise 1: serves one complete file, a process for each
 * client. It listens, forks, reaps; a child reads a request, answers it, and goes on
 * until the client closes. */
#include "csapp.h"

#include "file/metafile.h"
#include "net/wire.h"

static struct metafile meta;
static int data_fd;

static void reap_children(int sig)
{
	int before = errno;

	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = before;
}

static bool send_header(int fd, enum peer_status status, uint64_t length)
{
	struct peer_response response = {.status = (uint8_t)status, .length = length};
	uint8_t header[PEER_RESPONSE_SIZE];

	peer_response_encode(header, &response);
	return rio_writen(fd, header, sizeof header) == sizeof header;
}

static bool send_message(int fd, enum peer_status status, const char *message)
{
	size_t length = strlen(message);

	return send_header(fd, status, length) && rio_writen(fd, message, length) == (ssize_t)length;
}

/* False if the chunk was not sent whole: then nothing may follow. */
static bool send_chunk(int fd, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&meta, chunk);
	uint64_t left = metafile_chunk_length(&meta, chunk);
	char bytes[65536];

	if (!send_header(fd, PEER_OK, left))
		return false;
	while (left > 0) {
		size_t some = left < sizeof bytes ? (size_t)left : sizeof bytes;
		ssize_t n = pread(data_fd, bytes, some, (off_t)offset);
		if (n <= 0 || rio_writen(fd, bytes, (size_t)n) != n)
			return false;
		offset += (uint64_t)n;
		left -= (uint64_t)n;
	}
	return true;
}

/* Whether another request may follow. */
static bool answer(int fd, const uint8_t bytes[PEER_REQUEST_SIZE])
{
	struct peer_request request;

	if (!peer_request_decode(&request, bytes)) {
		send_message(fd, PEER_BAD_REQUEST, "a request begins with CASCADE1\n");
		return false;
	}
	if (memcmp(request.cascade_hash, meta.cascade_hash, SHA256_HASH_SIZE) != 0) {
		send_message(fd, PEER_NO_FILE, "that file is not served here\n");
		return false;
	}
	if (request.chunk >= meta.chunks) {
		send_message(fd, PEER_NO_SUCH_CHUNK, "the file has no such chunk\n");
		return false;
	}
	return send_chunk(fd, request.chunk);
}

int main(int argc, char **argv)
{
	const char *why;

	if (argc != 3) {
		fprintf(stderr, "usage: fork_peer FILE.cascade PORT\n");
		exit(2);
	}
	if (metafile_open(&meta, argv[1], &why) < 0)
		app_error(why);
	data_fd = Open(metafile_data_path(argv[1]), O_RDONLY, 0);
	Signal(SIGCHLD, reap_children);
	Signal(SIGPIPE, SIG_IGN);
	int listen_fd = Open_listenfd(argv[2]);

	for (;;) {
		int fd = accept(listen_fd, NULL, NULL);
		if (fd < 0)
			continue;	/* the client has gone already */
		if (Fork() == 0) {
			uint8_t request[PEER_REQUEST_SIZE];
			close(listen_fd);
			while (rio_readn(fd, request, sizeof request) == sizeof request && answer(fd, request))
				;
			exit(0);
		}
		close(fd);
	}
}
