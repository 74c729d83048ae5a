/* test_serve.c - serve_client with real data files, in a child as it is in life, and a client
 * at the other end of a socketpair; and that no process outlives the one that forked it.
 *
 * Nothing here sleeps: both sides wait for bytes, for end of file, or for a child. */
#include "serve/serve_client.h"
#include "base/bytes.h"
#include "net/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/process.h"
#include "serve/turns.h"
#include "unit.h"

/* ---- Data files ---- */

/* The chunks of SMALL, EDGE and the last one of each are copied into the answer, those of OVER
 * and BIG are not. */
enum { SMALL, EDGE, OVER, BIG, EMPTY, FILES };

static const struct {
	const char *name;
	size_t length, chunk_size;
} plan[FILES] = {
	[SMALL] = {"small", 1000, 64},
	[EDGE] = {"edge", 100000, 32 << 10},
	[OVER] = {"over", 100000, (32 << 10) + 1},
	[BIG] = {"big", (3 << 20) + 7, 1 << 20},
	[EMPTY] = {"empty", 0, 64},
};

static struct datafile files[FILES];
static char path[FILES][UNIT_PATH_SIZE], meta_path[FILES][UNIT_PATH_SIZE + sizeof METAFILE_SUFFIX];
static uint8_t body[4 << 20];		/* of the answer that came last */
static uint64_t body_size;

/* A byte that tells its place, with a period prime to all chunk sizes. */
static uint8_t pattern(size_t file, uint64_t at)
{
	return (uint8_t)(at % 251 + file);
}

/* Makes the data file and the metafile, and opens both. Nothing is held yet. */
static void make_file(size_t f)
{
	static uint8_t meta[METAFILE_HEADER_SIZE + 32 * SHA256_HASH_SIZE];
	uint64_t chunks = metafile_chunk_count(plan[f].length, plan[f].chunk_size);
	uint8_t hash[SHA256_HASH_SIZE];

	unit_path(path[f], plan[f].name);
	snprintf(meta_path[f], sizeof meta_path[f], "%s%s", path[f], METAFILE_SUFFIX);
	for (uint64_t i = 0; i < plan[f].length; i++)
		body[i] = pattern(f, i);
	unit_write_file(path[f], body, plan[f].length);
	unit_hash(body, plan[f].length, hash);
	metafile_encode_header(meta, plan[f].length, plan[f].chunk_size, hash);
	for (uint64_t i = 0; i < chunks; i++) {
		uint64_t at = i * plan[f].chunk_size, left = plan[f].length - at;
		unit_hash(body + at, (size_t)(left < plan[f].chunk_size ? left : plan[f].chunk_size),
			  meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	}
	unit_write_file(meta_path[f], meta, METAFILE_HEADER_SIZE + (size_t)chunks * SHA256_HASH_SIZE);
	if (datafile_open(&files[f], meta_path[f], path[f]) < 0)
		abort();
}

static void close_file(size_t f)
{
	close(files[f].fd);
	metafile_close(&files[f].meta);
	held_free(files[f].held);
	unlink(path[f]);
	unlink(meta_path[f]);
}

/* A file as it was at first, after a test that has spoilt it; all of it is held. */
static void renew_file(size_t f)
{
	close_file(f);
	make_file(f);
	for (uint64_t i = 0; i < files[f].meta.chunks; i++)
		held_add(files[f].held, i);
}

/* ---- A server and its client ---- */

static struct turns *turns;	/* for large chunks; NULL: all are sent at the same time */

/* What a child does with its end of the connection. */
static void serve(int fd)
{
	struct client_context context = {.files = files, .count = FILES, .turns = turns};

	fcntl(fd, F_SETFL, O_NONBLOCK);
	serve_client(fd, &context);
}

static pid_t server;		/* the one that is running */

/* Starts a server for one end of the pair. Result: the other end. */
static int serve_pair(const int end[2])
{
	server = unit_fork();
	if (server == 0) {
		close(end[0]);
		serve(end[1]);
		_exit(fcntl(end[1], F_GETFD) < 0);	/* it has to leave it open */
	}
	close(end[1]);
	return end[0];
}

static void make_pair(int end[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, end) < 0)
		abort();
}

static int start_server(void)
{
	int end[2];

	make_pair(end);
	return serve_pair(end);
}

/* One that has to wait when the client hasn't taken some thousand bytes. */
static int start_server_with_little_room(void)
{
	int end[2], little = 4096;

	make_pair(end);
	setsockopt(end[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
	return serve_pair(end);
}

/* Hangs up; the server has to end, and well. */
static void stop_server(int fd)
{
	close(fd);
	CHECK(unit_wait(server) == 0);
}

static void put(int fd, const void *bytes, size_t size)
{
	CHECK(send(fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size);
}

/* Sends a piece, and waits until the server has taken it (where the system can tell). */
static void put_piece(int fd, const uint8_t *bytes, size_t size)
{
	int unread = 1;

	put(fd, bytes, size);
	while (ioctl(fd, TIOCOUTQ, &unread) == 0 && unread > 0)
		sched_yield();
}

static void make_request(uint8_t bytes[PEER_REQUEST_SIZE], size_t f, uint64_t chunk)
{
	struct peer_request request = {.chunk = chunk};

	memcpy(request.cascade_hash, files[f].meta.cascade_hash, SHA256_HASH_SIZE);
	peer_request_encode(bytes, &request);
}

static void ask(int fd, size_t f, uint64_t chunk)
{
	uint8_t bytes[PEER_REQUEST_SIZE];

	make_request(bytes, f, chunk);
	put(fd, bytes, sizeof bytes);
}

/* The status of the next answer, whose body is in body; -1: there is no whole one. */
static int answer(int fd)
{
	uint8_t header[PEER_RESPONSE_SIZE];
	struct peer_response response;

	body_size = 0;
	if (unit_read(fd, header, sizeof header) != sizeof header)
		return -1;
	peer_response_decode(&response, header);
	if (response.length > sizeof body)
		return -1;
	body_size = unit_read(fd, body, (size_t)response.length);
	return body_size == response.length ? response.status : -1;
}

/* Whether body is that chunk, to the byte. */
static bool is_chunk(size_t f, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&files[f].meta, chunk);

	if (body_size != metafile_chunk_length(&files[f].meta, chunk))
		return false;
	for (uint64_t i = 0; i < body_size; i++)
		if (body[i] != pattern(f, offset + i))
			return false;
	return true;
}

static bool gives(int fd, size_t f, uint64_t chunk)
{
	return answer(fd) == PEER_OK && is_chunk(f, chunk);
}

/* Whether the next answer has that status, and some words that can be printed, as one line. */
static bool refuses(int fd, enum peer_status status)
{
	if (answer(fd) != (int)status || body_size < 2 || body_size > 200 || body[body_size - 1] != '\n')
		return false;
	for (uint64_t i = 0; i < body_size - 1; i++)
		if (body[i] < ' ' || body[i] > '~')
			return false;
	return true;
}

static bool ends(int fd)
{
	uint8_t byte;

	return recv(fd, &byte, 1, 0) == 0;
}

/* ---- Turns ---- */

static bool gets_turn(unsigned child)
{
	turns_ask(turns, child, 0, child, 1);
	return turns_wait(turns, child, -1, 0);
}

/* The server's client hangs up in its turn. The next one needn't wait until its parent has
 * reaped it. Returns false if the turn was over before that: this process was kept waiting for
 * too long. */
static bool hang_up_in_turn(void)
{
	static uint8_t bytes[100000];	/* more than it sends before its turn */

	turns = turns_new(TURNS_LEAST + 2, FILES);
	if (turns == NULL)
		abort();
	for (unsigned child = 0; child <= TURNS_LEAST + 1; child++)
		turns_join(turns, child);
	int fd = start_server_with_little_room();
	for (unsigned child = 1; child < TURNS_LEAST; child++)
		CHECK(gets_turn(child));
	ask(fd, BIG, 0);
	CHECK(unit_read(fd, bytes, sizeof bytes) == sizeof bytes);
	bool waits = !gets_turn(TURNS_LEAST);
	close(fd);
	unit_wait(server);
	if (waits)
		CHECK(turns_wait(turns, TURNS_LEAST, -1, 0));
	free(turns);
	turns = NULL;
	return waits;
}

static void test_a_turn_ends_with_the_connection(void)
{
	int tries = 0;

	while (tries < 50 && !hang_up_in_turn())
		tries++;
	CHECK(tries < 50);
}

/* ---- Answers ---- */

static void test_every_chunk(void)
{
	int fd = start_server();

	for (size_t f = 0; f < FILES; f++)
		for (uint64_t i = 0; i < files[f].meta.chunks; i++) {
			ask(fd, f, i);
			CHECK(gives(fd, f, i));
		}
	stop_server(fd);
}

static void test_from_file_to_file(void)
{
	static const size_t order[] = {SMALL, BIG, SMALL, EDGE, OVER, EDGE, SMALL};
	int fd = start_server();

	for (uint64_t i = 0; i < LENGTH(order); i++) {
		ask(fd, order[i], i % 3);
		CHECK(gives(fd, order[i], i % 3));
	}
	stop_server(fd);
}

/* Nothing is asked: nothing is said. */
static void test_silent_client(void)
{
	int fd = start_server();

	shutdown(fd, SHUT_WR);
	CHECK(ends(fd));
	stop_server(fd);
}

static void test_no_file(void)
{
	uint8_t bytes[PEER_REQUEST_SIZE];
	int fd;

	for (size_t i = 32; i < PEER_REQUEST_SIZE; i += 31) {	/* the hash's first byte, and its last */
		fd = start_server();
		make_request(bytes, SMALL, 0);
		bytes[i] ^= 1;
		put(fd, bytes, sizeof bytes);
		CHECK(refuses(fd, PEER_NO_FILE) && ends(fd));
		stop_server(fd);
	}
}

static void test_no_such_chunk(void)
{
	static const struct {
		size_t f;
		uint64_t chunk;
	} wrong[] = {{SMALL, 16}, {SMALL, 17}, {SMALL, UINT64_C(1) << 32}, {SMALL, UINT64_MAX},
		     {SMALL, UINT64_C(1) << 58}, {EMPTY, 0}, {BIG, 4}, {BIG, INT64_MAX}};

	for (size_t i = 0; i < LENGTH(wrong); i++) {
		int fd = start_server();
		ask(fd, wrong[i].f, wrong[i].chunk);
		CHECK(refuses(fd, PEER_NO_SUCH_CHUNK) && ends(fd));
		stop_server(fd);
	}
}

static void test_reserved_bytes_ignored(void)
{
	uint8_t bytes[PEER_REQUEST_SIZE];
	int fd = start_server();

	make_request(bytes, SMALL, 3);
	memset(bytes + 8, '0', 16);
	put(fd, bytes, sizeof bytes);
	CHECK(gives(fd, SMALL, 3));
	stop_server(fd);
}

/* The server looks into the shared map anew for each request. */
static void test_not_held_yet(void)
{
	struct held *all = files[SMALL].held;
	int fd;

	files[SMALL].held = held_new(files[SMALL].meta.chunks, 0);
	held_add(files[SMALL].held, 5);
	fd = start_server();
	ask(fd, SMALL, 4);
	CHECK(refuses(fd, PEER_NO_CHUNK_YET));
	ask(fd, SMALL, 5);
	CHECK(gives(fd, SMALL, 5));
	ask(fd, SMALL, 15);
	CHECK(refuses(fd, PEER_NO_CHUNK_YET));
	held_add(files[SMALL].held, 15);
	ask(fd, SMALL, 15);
	CHECK(gives(fd, SMALL, 15));
	ask(fd, SMALL, 4);
	CHECK(refuses(fd, PEER_NO_CHUNK_YET));
	stop_server(fd);
	held_free(files[SMALL].held);
	files[SMALL].held = all;
}

/* ---- Requests, ahead and in pieces ---- */

/* More of them than the server reads at once; some are for a chunk that is not held. */
static void test_pipelined(void)
{
	enum { REQUESTS = 200, NOT_HELD = 7 };
	static uint8_t bytes[REQUESTS * PEER_REQUEST_SIZE];
	size_t f[REQUESTS];
	uint64_t chunk[REQUESTS];
	struct held *all = files[SMALL].held;
	int fd;

	files[SMALL].held = held_new(files[SMALL].meta.chunks, 0);
	for (uint64_t i = 0; i < files[SMALL].meta.chunks; i++)
		if (i != NOT_HELD)
			held_add(files[SMALL].held, i);
	srand(1234);
	for (size_t i = 0; i < REQUESTS; i++) {
		int r = rand() % 40;
		f[i] = r == 0 ? BIG : r < 5 ? OVER : r < 9 ? EDGE : SMALL;
		chunk[i] = (uint64_t)rand() % files[f[i]].meta.chunks;
		make_request(bytes + i * PEER_REQUEST_SIZE, f[i], chunk[i]);
	}
	fd = start_server();
	put(fd, bytes, sizeof bytes);
	for (size_t i = 0; i < REQUESTS; i++)
		if (f[i] == SMALL && chunk[i] == NOT_HELD)
			CHECK(refuses(fd, PEER_NO_CHUNK_YET));
		else
			CHECK(gives(fd, f[i], chunk[i]));
	shutdown(fd, SHUT_WR);
	CHECK(ends(fd));
	stop_server(fd);
	held_free(files[SMALL].held);
	files[SMALL].held = all;
}

/* Whoever hangs up after asking gets all answers, and then the end. */
static void test_asked_and_hung_up(void)
{
	int fd = start_server();

	for (uint64_t i = 0; i < 16; i++)
		ask(fd, SMALL, i);
	ask(fd, BIG, 3);
	shutdown(fd, SHUT_WR);
	for (uint64_t i = 0; i < 16; i++)
		CHECK(gives(fd, SMALL, i));
	CHECK(gives(fd, BIG, 3) && ends(fd));
	stop_server(fd);
}

static void test_request_in_pieces(void)
{
	uint8_t bytes[3 * PEER_REQUEST_SIZE];
	int fd = start_server();

	for (size_t i = 0; i < 3; i++)
		make_request(bytes + i * PEER_REQUEST_SIZE, SMALL, 10 + i);
	for (size_t cut = 1; cut < PEER_REQUEST_SIZE; cut++) {
		put_piece(fd, bytes, cut);
		put_piece(fd, bytes + cut, PEER_REQUEST_SIZE - cut);
		CHECK(gives(fd, SMALL, 10));
	}
	for (size_t i = 0; i < PEER_REQUEST_SIZE; i++)
		put_piece(fd, bytes + i, 1);
	CHECK(gives(fd, SMALL, 10));
	for (size_t done = 0; done < sizeof bytes; done += 48)	/* cuts across requests */
		put_piece(fd, bytes + done, 48);
	for (uint64_t i = 10; i < 13; i++)
		CHECK(gives(fd, SMALL, i));
	stop_server(fd);
}

/* ---- What is no request ---- */

static void test_half_a_request(void)
{
	static const size_t cut[] = {1, 7, 8, 9, 32, 63};
	uint8_t bytes[PEER_REQUEST_SIZE];

	make_request(bytes, SMALL, 0);
	for (size_t i = 0; i < LENGTH(cut); i++) {
		int fd = start_server();
		put(fd, bytes, cut[i]);
		shutdown(fd, SHUT_WR);
		CHECK(refuses(fd, PEER_BAD_REQUEST) && ends(fd));
		stop_server(fd);
	}
	int fd = start_server();
	ask(fd, SMALL, 2);
	put(fd, bytes, 30);
	shutdown(fd, SHUT_WR);
	CHECK(gives(fd, SMALL, 2) && refuses(fd, PEER_BAD_REQUEST) && ends(fd));
	stop_server(fd);
}

/* Refused at the first wrong byte, though the client may send more. */
static void test_wrong_beginning(void)
{
	static const char *const beginning[] = {
		"c", "G", "CASCADE2", "CASX", "GET / HTTP/1.1\r\n\r\n", "\n", "CASCADE0CASCADE1"};

	for (size_t i = 0; i < LENGTH(beginning); i++) {
		int fd = start_server();
		put(fd, beginning[i], strlen(beginning[i]));
		CHECK(refuses(fd, PEER_BAD_REQUEST) && ends(fd));
		stop_server(fd);
	}
	for (size_t i = 0; i < 8; i++) {
		uint8_t bytes[PEER_REQUEST_SIZE];
		int fd = start_server();
		make_request(bytes, SMALL, 0);
		bytes[i] ^= 0x20;
		put_piece(fd, bytes, i + 1);
		CHECK(refuses(fd, PEER_BAD_REQUEST) && ends(fd));
		stop_server(fd);
	}
}

/* What was asked before is answered, what comes after is not. */
static void test_wrong_among_right(void)
{
	uint8_t bytes[3 * PEER_REQUEST_SIZE];
	int fd;

	for (size_t i = 0; i < 3; i++)
		make_request(bytes + i * PEER_REQUEST_SIZE, SMALL, i);
	fd = start_server();
	put(fd, bytes, PEER_REQUEST_SIZE);
	put(fd, "x", 1);
	CHECK(gives(fd, SMALL, 0) && refuses(fd, PEER_BAD_REQUEST) && ends(fd));
	stop_server(fd);

	bytes[PEER_REQUEST_SIZE] = 'X';
	fd = start_server();
	put(fd, bytes, sizeof bytes);
	CHECK(gives(fd, SMALL, 0) && refuses(fd, PEER_BAD_REQUEST) && ends(fd));
	stop_server(fd);

	fd = start_server();
	ask(fd, SMALL, 1);
	ask(fd, SMALL, 16);
	ask(fd, SMALL, 2);
	CHECK(gives(fd, SMALL, 1) && refuses(fd, PEER_NO_SUCH_CHUNK) && ends(fd));
	stop_server(fd);
}

/* ---- Data files that change ---- */

/* Another file in its place, even of the same length, is not served: nobody has checked it. */
static void test_data_file_replaced(void)
{
	static const size_t victim[] = {SMALL, BIG};
	char other[UNIT_PATH_SIZE];

	unit_path(other, "other");
	for (size_t i = 0; i < LENGTH(victim); i++) {
		size_t f = victim[i];
		int had_it_open = start_server();
		pid_t its_server = server;
		ask(had_it_open, f, 0);
		CHECK(gives(had_it_open, f, 0));

		memset(body, 'o', plan[f].length);
		unit_write_file(other, body, plan[f].length);
		CHECK(rename(other, path[f]) == 0);
		int fd = start_server();
		ask(fd, f, 0);
		CHECK(refuses(fd, PEER_NO_FILE) && ends(fd));
		stop_server(fd);
		ask(had_it_open, f, 1);	/* the old bytes or none */
		CHECK(answer(had_it_open) != PEER_OK || is_chunk(f, 1));
		server = its_server;
		stop_server(had_it_open);

		unlink(path[f]);
		fd = start_server();
		ask(fd, f, 0);
		CHECK(refuses(fd, PEER_NO_FILE) && ends(fd));
		stop_server(fd);

		CHECK(mkfifo(path[f], 0600) == 0);	/* opening it must not hang */
		fd = start_server();
		ask(fd, f, 0);
		CHECK(refuses(fd, PEER_NO_FILE) && ends(fd));
		stop_server(fd);
		renew_file(f);
	}
}

/* Never a whole answer for a chunk whose bytes aren't all there. */
static void test_data_file_truncated(void)
{
	static const struct {
		size_t f;
		off_t length;
		uint64_t chunk;
	} cut[] = {{SMALL, 999, 15}, {SMALL, 100, 1}, {SMALL, 100, 2}, {SMALL, 0, 15},
		   {OVER, 50000, 1}, {OVER, 0, 1}, {BIG, (2 << 20) + 4096, 2}, {BIG, (2 << 20) - 1, 1}};

	for (size_t i = 0; i < LENGTH(cut); i++) {
		size_t f = cut[i].f;
		int fd = start_server();
		ask(fd, EDGE, 0);	/* something else before, which is due */
		CHECK(truncate(path[f], cut[i].length) == 0);
		uint8_t bytes[2 * PEER_REQUEST_SIZE];	/* in one piece: the first may end it */
		make_request(bytes, f, cut[i].chunk);
		make_request(bytes + PEER_REQUEST_SIZE, EDGE, 1);
		put(fd, bytes, sizeof bytes);
		CHECK(gives(fd, EDGE, 0));
		int status = answer(fd);
		CHECK(status == PEER_NO_FILE || status == -1);
		for (uint64_t k = 0; status == -1 && k < body_size; k++)
			if (body[k] != pattern(f, metafile_chunk_offset(&files[f].meta, cut[i].chunk) + k)) {
				CHECK(false);
				break;
			}
		CHECK(ends(fd));
		stop_server(fd);
		renew_file(f);
	}
}

static void test_data_file_truncated_meanwhile(void)
{
	uint8_t header[PEER_RESPONSE_SIZE];
	int fd = start_server();

	ask(fd, BIG, 0);
	CHECK(unit_read(fd, header, sizeof header) == sizeof header && header[0] == PEER_OK);
	CHECK(truncate(path[BIG], 0) == 0);
	CHECK(unit_read(fd, body, plan[BIG].chunk_size) < plan[BIG].chunk_size);
	stop_server(fd);
	renew_file(BIG);
}

/* ---- Clients ---- */

static void test_slow_reader(void)
{
	enum { SPOON = 997 };		/* bytes taken at a time */
	int fd = start_server_with_little_room();

	for (uint64_t chunk = 0; chunk < 4; chunk++)
		ask(fd, BIG, chunk);
	for (uint64_t chunk = 0; chunk < 4; chunk++) {
		uint64_t length = metafile_chunk_length(&files[BIG].meta, chunk);
		uint8_t header[PEER_RESPONSE_SIZE];
		CHECK(unit_read(fd, header, sizeof header) == sizeof header && header[0] == PEER_OK);
		CHECK(decode_be64(header + 1) == length);
		for (body_size = 0; body_size < length; ) {
			uint64_t want = length - body_size < SPOON ? length - body_size : SPOON;
			if (unit_read(fd, body + body_size, (size_t)want) != want)
				break;
			body_size += want;
			if (body_size / SPOON % 16 == 0)
				sched_yield();
		}
		CHECK(is_chunk(BIG, chunk));
	}
	stop_server(fd);
}

/* Copied chunks, more than fit into what is sent at once, to one who takes little at a time. */
static void test_many_copied_chunks(void)
{
	enum { REQUESTS = 64 };
	uint8_t bytes[REQUESTS * PEER_REQUEST_SIZE];
	int fd = start_server_with_little_room();

	for (size_t i = 0; i < REQUESTS; i++)
		make_request(bytes + i * PEER_REQUEST_SIZE, EDGE, i % 4);
	put(fd, bytes, sizeof bytes);
	for (size_t i = 0; i < REQUESTS; i++)
		if (!CHECK(gives(fd, EDGE, i % 4)))
			break;
	stop_server(fd);
}

/* It hangs up while the server is sending: that ends the server, and well. */
static void test_client_goes_away(void)
{
	static const size_t from[] = {BIG, EDGE};
	uint8_t byte;

	for (size_t i = 0; i < LENGTH(from); i++) {
		int fd = start_server();
		for (int k = 0; k < 50; k++)
			ask(fd, from[i], 0);
		CHECK(recv(fd, &byte, 1, 0) == 1);
		stop_server(fd);
	}
}

/* Some clients read the nine bytes of a header with one recv. Over TCP, this time. */
static void test_header_in_one_piece(void)
{
	struct sockaddr_in sa;
	int listener = unit_bound_socket(&sa), end[2];

	CHECK(listen(listener, 1) == 0);
	end[0] = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(end[0], (struct sockaddr *)&sa, sizeof sa) == 0);
	end[1] = accept(listener, NULL, NULL);
	close(listener);
	int fd = serve_pair(end);
	for (size_t f = 0; f < EMPTY; f++) {
		uint8_t header[PEER_RESPONSE_SIZE];
		ask(fd, f, 0);
		CHECK(recv(fd, header, sizeof header, 0) == sizeof header);
		body_size = unit_read(fd, body, (size_t)decode_be64(header + 1));
		CHECK(header[0] == PEER_OK && is_chunk(f, 0));
	}
	stop_server(fd);
}

/* In this process: it leaves the socket open and non-blocking, and nothing else. */
static void test_leaves_nothing_open(void)
{
	int end[2], before;

	make_pair(end);
	before = unit_open_fds();
	ask(end[0], SMALL, 0);
	ask(end[0], EDGE, 0);
	shutdown(end[0], SHUT_WR);
	serve(end[1]);
	CHECK(unit_open_fds() == before);
	close(end[1]);
	CHECK(gives(end[0], SMALL, 0) && gives(end[0], EDGE, 0) && ends(end[0]));
	close(end[0]);
}

/* ---- Processes ---- */

/* The grandchild tells who it is, and holds the pipe's writing end: end of file comes when it
 * has gone. */
static void test_child_ends_with_parent(void)
{
	struct pollfd p = {.events = POLLIN};
	pid_t parent, grandchild = 0;
	int end[2];

	unit_pipe(end);
	parent = unit_fork();
	if (parent == 0) {
		if (process_fork("child") != 0) {
			close(end[1]);
		} else {
			pid_t self = getpid();
			if (write(end[1], &self, sizeof self) != sizeof self)
				_exit(1);
		}
		for (;;)
			pause();
	}
	close(end[1]);
	p.fd = end[0];
	CHECK(read(end[0], &grandchild, sizeof grandchild) == sizeof grandchild);
	CHECK(poll(&p, 1, 0) == 0);
	CHECK(kill(parent, SIGKILL) == 0 && unit_wait(parent) == -SIGKILL);
	if (!CHECK(poll(&p, 1, 5000) == 1) && grandchild > 0)
		kill(grandchild, SIGKILL);
	CHECK(read(end[0], &grandchild, 1) == 0);
	close(end[0]);
}

static void on_signal(int sig)
{
	(void)sig;
}

static bool acts_as(int sig, void (*handler)(int))
{
	struct sigaction action;

	return sigaction(sig, NULL, &action) == 0 && action.sa_handler == handler;
}

static void test_signals_after_fork(void)
{
	static const int handled[] = {SIGCHLD, SIGINT, SIGTERM};
	static const int ignored[] = {SIGPIPE, SIGUSR1, SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set, before, now;
	pid_t pid = unit_fork();

	if (pid == 0) {		/* so that what it changes goes with it */
		sigemptyset(&set);
		sigaddset(&set, SIGTERM);
		sigaddset(&set, SIGCHLD);
		sigprocmask(SIG_BLOCK, &set, &before);
		for (size_t i = 0; i < LENGTH(handled); i++)
			sigaction(handled[i], &action, NULL);
		sigaction(SIGUSR1, &action, NULL);
		pid_t child = process_fork("child");
		if (child == 0) {
			bool right = acts_as(SIGCHLD, SIG_DFL);
			for (size_t i = 0; i < LENGTH(ignored); i++)
				right = right && acts_as(ignored[i], SIG_IGN);
			sigprocmask(SIG_SETMASK, NULL, &now);
			for (int sig = 1; sig < 32; sig++)
				right = right && sigismember(&now, sig) == 0;
			_exit(!right);
		}
		bool right = process_wait(child) == NULL && acts_as(SIGTERM, on_signal);
		sigprocmask(SIG_SETMASK, NULL, &now);
		right = right && sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGINT) == 0;
		_exit(!right);
	}
	CHECK(unit_wait(pid) == 0);
}

static void test_how_it_ended(void)
{
	static const char killed[] = "killed by signal 9 (";
	const char *how;
	pid_t pid = process_fork(NULL);

	if (pid == 0)
		_exit(0);
	CHECK(process_wait(pid) == NULL);
	pid = process_fork(NULL);
	if (pid == 0)
		_exit(3);
	how = process_wait(pid);
	CHECK(how != NULL && strcmp(how, "exit status 3") == 0);
	pid = process_fork(NULL);
	if (pid == 0)
		for (;;)
			pause();
	kill(pid, SIGKILL);
	how = process_wait(pid);
	CHECK(how != NULL && strncmp(how, killed, strlen(killed)) == 0);
	how = process_wait(pid);		/* it is gone */
	CHECK(how != NULL && strcmp(how, strerror(ECHILD)) == 0);
}

static int run_all(void)
{
	signal(SIGPIPE, SIG_IGN);	/* as the program has it */
	for (size_t f = 0; f < FILES; f++) {
		make_file(f);
		renew_file(f);
	}
	RUN(test_a_turn_ends_with_the_connection);
	RUN(test_every_chunk);
	RUN(test_from_file_to_file);
	RUN(test_silent_client);
	RUN(test_no_file);
	RUN(test_no_such_chunk);
	RUN(test_reserved_bytes_ignored);
	RUN(test_not_held_yet);
	RUN(test_pipelined);
	RUN(test_asked_and_hung_up);
	RUN(test_request_in_pieces);
	RUN(test_half_a_request);
	RUN(test_wrong_beginning);
	RUN(test_wrong_among_right);
	RUN(test_data_file_replaced);
	RUN(test_data_file_truncated);
	RUN(test_data_file_truncated_meanwhile);
	RUN(test_slow_reader);
	RUN(test_many_copied_chunks);
	RUN(test_client_goes_away);
	RUN(test_header_in_one_piece);
	RUN(test_leaves_nothing_open);
	RUN(test_child_ends_with_parent);
	RUN(test_signals_after_fork);
	RUN(test_how_it_ended);
	for (size_t f = 0; f < FILES; f++)
		close_file(f);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
