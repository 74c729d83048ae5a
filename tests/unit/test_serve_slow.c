/* test_serve_slow.c - what a child thinks of clients that keep it waiting, with time in the
 * test's hand.
 *
 * The module's source is included, with a clock that stands still but while it waits for the
 * client. The client is this process, too: it acts inside of those waits. */
#define _GNU_SOURCE	/* struct tcp_info, where the system has it */
#include "base/clock.h"
#include "net/wire.h"

#include <errno.h>
#include <poll.h>

static int64_t test_ms;			/* what the clock shows */
static int (*client_acts)(short events);	/* inside a wait; 0: nothing came of it */

static int64_t test_clock_ms(void)
{
	return test_ms;
}

/* Waits a moment, or until the deadline: a tenth of a second to send, a quarter to receive. */
static int test_wait_ready(int fd, short events, int64_t deadline_ms)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (test_ms < deadline_ms && client_acts(events) == 0)
		test_ms = clock_earlier(test_ms + (events & POLLOUT ? 100 : 250), deadline_ms);
	if (poll(&p, 1, 0) == 1)
		return 0;
	if (test_ms < deadline_ms)
		return test_wait_ready(fd, events, deadline_ms);
	errno = ETIMEDOUT;
	return -1;
}

#define clock_ms test_clock_ms
#define wait_ready test_wait_ready
#include "serve/pace.c"
#include "serve/serve_client.c"
#undef clock_ms
#undef wait_ready

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "unit.h"

enum { CHUNKS = 8, CHUNK_SIZE = 32 << 10, NOT_HELD = 7 };	/* of the small chunks that are copied */
static const char not_held_message[] = "this peer doesn't have that chunk yet\n";

static struct datafile file;
static uint8_t content[CHUNKS * CHUNK_SIZE];
static char path[UNIT_PATH_SIZE], meta_path[UNIT_PATH_SIZE + sizeof METAFILE_SUFFIX];

static void make_file(void)
{
	static uint8_t meta[METAFILE_HEADER_SIZE + CHUNKS * SHA256_HASH_SIZE];
	uint8_t hash[SHA256_HASH_SIZE];

	for (size_t i = 0; i < sizeof content; i++)
		content[i] = (uint8_t)(i % 251 + 1);
	unit_hash(content, sizeof content, hash);
	metafile_encode_header(meta, sizeof content, CHUNK_SIZE, hash);
	for (size_t i = 0; i < CHUNKS; i++)
		unit_hash(content + i * CHUNK_SIZE, CHUNK_SIZE,
			  meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	unit_path(path, "data");
	snprintf(meta_path, sizeof meta_path, "%s%s", path, METAFILE_SUFFIX);
	unit_write_file(path, content, sizeof content);
	unit_write_file(meta_path, meta, sizeof meta);
	if (datafile_open(&file, meta_path, path) < 0)
		abort();
	for (uint64_t i = 0; i < NOT_HELD; i++)
		held_add(file.held, i);
}

/* ---- the client ---- */

static int client_fd;
static struct client_slot slot;
static uint8_t *came;			/* all that the client has taken */
static size_t came_size;
static int turn;			/* counts what it has done */
static int64_t useful_ms;		/* what the slot told last, as the whole time */
static int64_t ended_ms;		/* when the child left it */

static void take(size_t size)
{
	ssize_t n = recv(client_fd, came + came_size, size, MSG_DONTWAIT);

	if (n > 0)
		came_size += (size_t)n;
}

static void ask(uint64_t chunk, size_t first, size_t end)
{
	struct peer_request request = {.chunk = chunk};
	uint8_t bytes[PEER_REQUEST_SIZE];

	memcpy(request.cascade_hash, file.meta.cascade_hash, SHA256_HASH_SIZE);
	peer_request_encode(bytes, &request);
	CHECK(send(client_fd, bytes + first, end - first, MSG_NOSIGNAL) == (ssize_t)(end - first));
}

static void note_use(void)
{
	useful_ms = test_ms - (int32_t)((uint32_t)test_ms - atomic_load(&slot.since_ms));
}

/* Connects, with little room for what is sent to the client. */
static void prepare(int end[2])
{
	int little = 16384;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, end) < 0)
		abort();
	setsockopt(end[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
	fcntl(end[1], F_SETFL, O_NONBLOCK);
	client_fd = end[0];
	memset(&slot, 0, sizeof slot);
	test_ms = INT64_C(5000000000);	/* more than 32 bits, as after seven weeks */
	came_size = 0;
	turn = 0;
	useful_ms = 0;
}

/* Serves the client, which acts so, to its end, and then takes what is left. */
static void live(int end[2], int (*acts)(short events), bool verify)
{
	struct client_context context = {.files = &file, .count = 1, .slot = &slot, .verify = verify};

	client_acts = acts;
	serve_client(end[1], &context);
	ended_ms = test_ms;
	close(end[1]);
	while (recv(client_fd, came + came_size, 1, MSG_PEEK) == 1)
		take(65536);
	close(client_fd);
}

/* Whether what came is the beginning of the answers with these chunks. */
static bool came_right(const uint64_t chunks[], size_t count)
{
	size_t at = 0;

	for (size_t i = 0; i < count && at < came_size; i++) {
		uint8_t expected[PEER_RESPONSE_SIZE + CHUNK_SIZE];
		bool held = chunks[i] < NOT_HELD;
		size_t length = held ? CHUNK_SIZE : sizeof not_held_message - 1;
		peer_response_encode(expected, &(struct peer_response){
			.status = held ? PEER_OK : PEER_NO_CHUNK_YET, .length = length});
		memcpy(expected + PEER_RESPONSE_SIZE,
		       held ? (const void *)(content + chunks[i] * CHUNK_SIZE) : not_held_message, length);
		size_t size = PEER_RESPONSE_SIZE + length;
		size = size < came_size - at ? size : came_size - at;
		if (memcmp(came + at, expected, size) != 0)
			return false;
		at += size;
	}
	return at == came_size;
}

/* ---- below the floor ---- */

static int64_t began_ms;

/* Takes nothing but, shortly before the floor is looked at, a little: then there is room to send,
 * though too little for poll to tell of it. */
static int take_a_little_late(short events)
{
	if ((events & POLLOUT) && turn == 0) {
		began_ms = test_ms;
		turn = 1;
	}
	if (turn == 1 && test_ms >= began_ms + FLOOR_MS - LOOK_MS) {
		turn = 2;
		take(20000);
	}
	return 0;
}

static void test_what_was_begun_is_never_gone_on_with_after_a_failure(void)
{
	static const uint64_t chunks[] = {0, 1, 2, 3, 4, 5};

	for (int verify = 0; verify < 2; verify++) {
		int end[2];
		prepare(end);
		for (size_t i = 0; i < LENGTH(chunks); i++)
			ask(chunks[i], 0, PEER_REQUEST_SIZE);
		live(end, take_a_little_late, verify == 1);
		CHECK(turn == 2 && ended_ms == began_ms + FLOOR_MS);
		CHECK(came_size > 0 && came_right(chunks, LENGTH(chunks)));
		CHECK(atomic_load(&slot.chunks) <= came_size / (PEER_RESPONSE_SIZE + CHUNK_SIZE));
	}
}

/* ---- the clock of useful work ---- */

static int64_t first_ms;

/* Chunk 0 whole; then a request in drops, one byte a quarter of a second. */
static int drip(short events)
{
	if (events & POLLOUT) {
		take(65536);
		return 1;
	}
	take(65536);
	if (turn == 1) {
		note_use();
		first_ms = test_ms;
	}
	if (turn > 1 && test_ms < first_ms + REQUEST_MS)
		CHECK(useful_ms == test_ms - (int32_t)((uint32_t)test_ms - atomic_load(&slot.since_ms)));
	if (turn > 0)
		ask(0, (size_t)turn - 1, (size_t)turn);
	turn++;
	return 0;
}

static void test_bytes_of_a_request_are_no_use_and_move_no_deadline(void)
{
	int end[2];
	int64_t start_ms;

	prepare(end);
	start_ms = test_ms;
	ask(0, 0, PEER_REQUEST_SIZE);
	live(end, drip, false);
	CHECK(useful_ms == start_ms);
	CHECK(turn > 30 && turn < PEER_REQUEST_SIZE);	/* it was left before the request was whole */
	/* Until the first byte, from that on, and to read the answer. */
	CHECK(ended_ms - start_ms <= 500 + REQUEST_MS + LINGER_MS);
}

/* Asks each second for what isn't held, but for one chunk in the middle. */
static int ask_in_vain(short events)
{
	take(65536);
	if (events & POLLOUT)
		return 1;
	test_ms += 750;
	if (turn == 0)
		note_use();
	CHECK(turn == 21 || useful_ms == test_ms - (int32_t)((uint32_t)test_ms - atomic_load(&slot.since_ms)));
	if (turn == 21)
		note_use();
	if (turn == 60)
		shutdown(client_fd, SHUT_WR);
	else
		ask(turn == 20 ? 0 : NOT_HELD, 0, PEER_REQUEST_SIZE);
	turn++;
	return 1;
}

static void test_answers_without_a_chunk_are_no_use_but_may_be_asked_for(void)
{
	int end[2];
	int64_t start_ms;

	prepare(end);
	start_ms = test_ms;
	live(end, ask_in_vain, false);
	CHECK(turn == 61);
	CHECK(useful_ms > start_ms + 15000 && useful_ms < start_ms + 17000);
	CHECK(ended_ms >= start_ms + 45000);
}

/* Takes chunk 0 at once, and then of many refusals some bytes each tenth of a second. */
static int take_refusals_slowly(short events)
{
	if (events & POLLIN) {
		shutdown(client_fd, SHUT_WR);
		return 1;
	}
	if (came_size < PEER_RESPONSE_SIZE + CHUNK_SIZE) {
		take(65536);
		first_ms = test_ms;
		return 1;
	}
	CHECK(atomic_load(&slot.state) == CLIENT_SILENT);
	note_use();
	CHECK(useful_ms <= first_ms);
	turn++;
	take(500);
	return 0;
}

static void test_taking_answers_without_a_chunk_slowly_is_no_use(void)
{
	enum { REFUSALS = 1200 };
	static uint8_t requests[REFUSALS * PEER_REQUEST_SIZE];
	struct peer_request request = {.chunk = NOT_HELD};
	int end[2];

	prepare(end);
	memcpy(request.cascade_hash, file.meta.cascade_hash, SHA256_HASH_SIZE);
	for (size_t i = 0; i < REFUSALS; i++)
		peer_request_encode(requests + i * PEER_REQUEST_SIZE, &request);
	ask(0, 0, PEER_REQUEST_SIZE);
	CHECK(send(client_fd, requests, sizeof requests, MSG_NOSIGNAL) == (ssize_t)sizeof requests);
	live(end, take_refusals_slowly, false);
	CHECK(turn > 20);
}

/* Takes so many bytes each tenth of a second. */
static size_t spoon;
static int64_t latest_ms, longest_behind_ms;

static int take_slowly(short events)
{
	take(spoon);
	if (events & POLLOUT && atomic_load(&slot.state) == CLIENT_SLOW) {
		note_use();
		if (test_ms - useful_ms > longest_behind_ms)
			longest_behind_ms = test_ms - useful_ms;
		latest_ms = test_ms;
	}
	if ((events & POLLIN) && turn++ == 0)
		shutdown(client_fd, SHUT_WR);
	return 0;
}

static void test_a_client_is_slow_by_what_it_takes(void)
{
	static const uint64_t chunks[] = {0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6};
	static const size_t spoons[] = {CLIENT_RATE / 10 / 2, CLIENT_RATE / 10 * 2};

	for (size_t s = 0; s < LENGTH(spoons); s++) {
		int end[2];
		prepare(end);
		longest_behind_ms = 0;
		spoon = spoons[s];
		for (size_t i = 0; i < LENGTH(chunks); i++)
			ask(chunks[i], 0, PEER_REQUEST_SIZE);
		live(end, take_slowly, false);
		CHECK(came_right(chunks, LENGTH(chunks)) &&
		      came_size == LENGTH(chunks) * (PEER_RESPONSE_SIZE + CHUNK_SIZE));
		if (s == 0)
			CHECK(longest_behind_ms > 8000);	/* it needs 56 s for 28 s worth */
		else
			CHECK(longest_behind_ms < 1000);
	}
}

static int run_all(void)
{
	signal(SIGPIPE, SIG_IGN);	/* as the program has it */
	came = malloc(4 << 20);
	if (came == NULL)
		abort();
	make_file();
	RUN(test_what_was_begun_is_never_gone_on_with_after_a_failure);
	RUN(test_bytes_of_a_request_are_no_use_and_move_no_deadline);
	RUN(test_answers_without_a_chunk_are_no_use_but_may_be_asked_for);
	RUN(test_taking_answers_without_a_chunk_slowly_is_no_use);
	RUN(test_a_client_is_slow_by_what_it_takes);
	free(came);
	close(file.fd);
	metafile_close(&file.meta);
	held_free(file.held);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
