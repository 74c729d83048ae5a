/* poll_peer.c - a solution of exercise 2: serves one complete file to all clients from
 * one process. What a child of exercise 1 has on its stack, where it is in a request and
 * in a response, is a struct here; and no call may wait but poll. */
#include "csapp.h"

#include <poll.h>

#include "file/metafile.h"
#include "net/wire.h"

#define CLIENTS_MAX 500

struct client {
	int fd;
	bool closing;			/* once what is left is sent */
	uint8_t request[PEER_REQUEST_SIZE];
	size_t got;			/* bytes of the request */
	char out[65536];		/* bytes to send: from sent up to used */
	size_t used, sent;
	uint64_t offset, left;		/* bytes of the chunk, in the data file, that are not in out yet */
};

static struct metafile meta;
static int data_fd;
static struct client *clients[CLIENTS_MAX];
static size_t client_count;

static void put_header(struct client *c, enum peer_status status, uint64_t length)
{
	struct peer_response response = {.status = (uint8_t)status, .length = length};

	peer_response_encode((uint8_t *)c->out, &response);
	c->used = PEER_RESPONSE_SIZE;
	c->sent = 0;
}

static void refuse(struct client *c, enum peer_status status, const char *message)
{
	size_t length = strlen(message);

	put_header(c, status, length);
	memcpy(c->out + c->used, message, length);
	c->used += length;
	c->closing = true;
}

static void answer(struct client *c)
{
	struct peer_request request;

	c->got = 0;
	if (!peer_request_decode(&request, c->request)) {
		refuse(c, PEER_BAD_REQUEST, "a request begins with CASCADE1\n");
	} else if (memcmp(request.cascade_hash, meta.cascade_hash, SHA256_HASH_SIZE) != 0) {
		refuse(c, PEER_NO_FILE, "that file is not served here\n");
	} else if (request.chunk >= meta.chunks) {
		refuse(c, PEER_NO_SUCH_CHUNK, "the file has no such chunk\n");
	} else {
		c->offset = metafile_chunk_offset(&meta, request.chunk);
		c->left = metafile_chunk_length(&meta, request.chunk);
		put_header(c, PEER_OK, c->left);
	}
}

static bool has_to_send(const struct client *c)
{
	return c->sent < c->used || c->left > 0;
}

/* Puts the next bytes of the chunk into out. False if they can't be read. */
static bool fill(struct client *c)
{
	size_t some = c->left < sizeof c->out ? (size_t)c->left : sizeof c->out;
	ssize_t n = pread(data_fd, c->out, some, (off_t)c->offset);

	if (n <= 0)
		return false;
	c->used = (size_t)n;
	c->sent = 0;
	c->offset += (uint64_t)n;
	c->left -= (uint64_t)n;
	return true;
}

/* Each of these two moves what can be moved now; false: the client is to be dropped. */

static bool send_some(struct client *c)
{
	if (c->sent == c->used && !fill(c))
		return false;
	ssize_t n = write(c->fd, c->out + c->sent, c->used - c->sent);
	if (n < 0)
		return errno == EAGAIN;
	c->sent += (size_t)n;
	return has_to_send(c) || !c->closing;
}

static bool read_some(struct client *c)
{
	ssize_t n = read(c->fd, c->request + c->got, sizeof c->request - c->got);

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	c->got += (size_t)n;
	if (c->got == sizeof c->request)
		answer(c);
	return true;
}

static void accept_client(int listen_fd)
{
	int fd = accept(listen_fd, NULL, NULL);

	if (fd < 0)
		return;		/* it has gone already */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	clients[client_count] = Calloc(1, sizeof(struct client));
	clients[client_count++]->fd = fd;
}

static void drop(size_t i)
{
	close(clients[i]->fd);
	free(clients[i]);
	clients[i] = clients[--client_count];
}

/* A client is read from only when it has its answer: so nothing piles up here. */
static void serve_all(int listen_fd)
{
	struct pollfd polled[CLIENTS_MAX + 1];

	for (size_t i = 0; i < client_count; i++)
		polled[i] = (struct pollfd){.fd = clients[i]->fd,
			.events = has_to_send(clients[i]) ? POLLOUT : POLLIN};
	polled[client_count] = (struct pollfd){.fd = client_count < CLIENTS_MAX ? listen_fd : -1,
		.events = POLLIN};
	size_t count = client_count;
	if (poll(polled, (nfds_t)count + 1, -1) < 0)
		return;
	bool arrived = polled[count].revents != 0;
	for (size_t i = count; i-- > 0; )	/* backwards: who is dropped gets another in its place */
		if (polled[i].revents != 0 &&
		    !(has_to_send(clients[i]) ? send_some(clients[i]) : read_some(clients[i])))
			drop(i);
	if (arrived)
		accept_client(listen_fd);
}

int main(int argc, char **argv)
{
	const char *why;

	if (argc != 3) {
		fprintf(stderr, "usage: poll_peer FILE.cascade PORT\n");
		exit(2);
	}
	if (metafile_open(&meta, argv[1], &why) < 0)
		app_error(why);
	data_fd = Open(metafile_data_path(argv[1]), O_RDONLY, 0);
	Signal(SIGPIPE, SIG_IGN);
	int listen_fd = Open_listenfd(argv[2]);
	fcntl(listen_fd, F_SETFL, O_NONBLOCK);
	for (;;)
		serve_all(listen_fd);
}
