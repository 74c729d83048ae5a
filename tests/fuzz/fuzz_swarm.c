/* fuzz_swarm.c - the input is what happens to a fetcher: its own swarm.c, choice.c, wanted.c,
 * connection.c and arrival.c, with a clock and a network of this file. Each byte is a deed of
 * a peer (the two high bits say of which) or of time: right chunks, wrong ones, refusals,
 * messages, bytes by the drop or at random, closed connections, silence.
 *
 * After each, every chunk must be exactly one of wanted, asked for, unchecked, held. At the
 * end the peers are gone, and the tracker names an honest one: from that one the rest must
 * come, in time, and the file be right. */
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/clock.h"

static int64_t now_ms;
static size_t piece_size;	/* bytes that recv gives at most */

static int64_t fuzz_clock_ms(void)
{
	return now_ms;
}

static ssize_t recv_piece(int fd, void *to, size_t size, int flags)
{
	return recv(fd, to, size < piece_size ? size : piece_size, flags);
}

#define clock_ms fuzz_clock_ms
#define recv recv_piece
#include "fetch/arrival.c"
#undef recv

#include <fcntl.h>
#include <stdatomic.h>

#include "fuzz.h"

enum { CHUNKS = 23, CHUNK_SIZE = 100, LENGTH = 2230, PEERS = 3, HONEST = PEERS };
enum { STEP_MS = 100, LONGEST_MS = 300000 };

static struct datafile file;
static struct swarm swarm;
static struct arrival arrival;
static uint8_t bytes[LENGTH];
static int remote[PEERS + 1];		/* the peers' ends of their connections, or -1 */
static bool gone[PEERS + 1];		/* nobody answers there */

/* ---- the network, in dial.c's place ---------------------------------------------------- */

static unsigned index_of(struct address a)
{
	return a.port - 1000u;
}

int connection_open(struct connection *c, struct address to, int64_t now)
{
	int fds[2];
	unsigned i = index_of(to);

	MUST(i <= PEERS && remote[i] < 0);
	if (gone[i]) {
		errno = ECONNREFUSED;
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		abort();
	remote[i] = fds[1];
	connection_begin(c, fds[0], now);
	c->connecting = true;
	return 0;
}

int connection_made(struct connection *c, int64_t now)
{
	c->connecting = false;
	c->round_trip_ms = now - c->heard_ms;
	return 0;
}

void connection_close(struct connection *c)
{
	for (size_t i = 0; i < swarm.count; i++)
		if (&swarm.peers[i].connection == c && c->fd >= 0) {
			unsigned at = index_of(swarm.peers[i].address);
			if (remote[at] >= 0)
				close(remote[at]);
			remote[at] = -1;
		}
	if (c->fd >= 0)
		close(c->fd);
	connection_free(c);
}

int connection_send(struct connection *c)
{
	MUST(c->out_used % PEER_REQUEST_SIZE == 0);
	c->out_used = c->out_sent = 0;
	return 0;
}

void connection_wake_at(struct connection *c, size_t n)
{
	c->wake_bytes = n;
}

/* Checkers are processes: without any, the fetcher checks by itself. */

int checkers_send(const struct run *run)
{
	(void)run;
	return -1;
}

void checkers_wait(void)
{
	abort();
}

/* ---- what must always be so ------------------------------------------------------------ */

static void check_states(void)
{
	uint64_t wanted = 0;

	MUST(!arrival.failed && arrival.held == held_count(file.held));
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++) {
		bool is_wanted = wanted_has(&swarm.choice.wanted, chunk);
		int states = held_has(file.held, chunk) + is_wanted +
			     (chunk - arrival.unchecked.first < arrival.unchecked.count);
		wanted += is_wanted;
		for (size_t i = 0; i < swarm.count; i++) {
			const struct connection *c = &swarm.peers[i].connection;
			MUST(connection_is_open(c) || c->asked_count == 0);
			for (size_t at = 0; at < c->asked_count; at++)
				states += c->asked[(c->asked_first + at) % c->asked_size] == chunk;
		}
		MUST(states == 1);
	}
	MUST(wanted == swarm.choice.wanted.count);
	for (size_t i = 0; i < swarm.count; i++)
		MUST(!swarm.peers[i].banned || !connection_is_open(&swarm.peers[i].connection));
}

/* Held is what has the right bytes in the file. */
static void check_file(void)
{
	static uint8_t found[LENGTH];

	if (pread(file.fd, found, LENGTH, 0) != LENGTH)
		abort();
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		if (held_has(file.held, chunk))
			MUST(memcmp(found + chunk * CHUNK_SIZE, bytes + chunk * CHUNK_SIZE,
				    metafile_chunk_length(&file.meta, chunk)) == 0);
}

/* ---- what peers do ----------------------------------------------------------------------- */

static struct peer *peer_at(unsigned i)
{
	for (size_t k = 0; k < swarm.count; k++)
		if (index_of(swarm.peers[k].address) == i)
			return &swarm.peers[k];
	return NULL;
}

/* Lets the fetcher read what has come, as poll would have it do. */
static void receive_all(struct peer *p, bool closed)
{
	int left = 0;

	do {
		arrival_receive(&arrival, p);
		left = 0;
	} while (connection_is_open(&p->connection) && !arrival.failed &&
		 ioctl(p->connection.fd, FIONREAD, &left) == 0 && left > 0);
	if (closed && connection_is_open(&p->connection))
		arrival_receive(&arrival, p);	/* the end */
}

static void send_answer(unsigned i, uint8_t status, uint64_t length, const uint8_t *body, size_t size)
{
	struct peer *p = peer_at(i);
	uint8_t header[PEER_RESPONSE_SIZE];

	peer_response_encode(header, &(struct peer_response){.status = status, .length = length});
	if (send(remote[i], header, sizeof header, MSG_NOSIGNAL) < 0 ||
	    send(remote[i], body, size, MSG_NOSIGNAL) < 0)
		abort();
	receive_all(p, false);
}

static void send_raw(unsigned i, const uint8_t *data, size_t size)
{
	if (send(remote[i], data, size, MSG_NOSIGNAL) < 0)
		abort();
	receive_all(peer_at(i), false);
}

static void hang_up(unsigned i)
{
	close(remote[i]);
	remote[i] = -1;
	receive_all(peer_at(i), true);
}

static void send_chunk(unsigned i, bool right)
{
	struct peer *p = peer_at(i);
	uint8_t body[CHUNK_SIZE];
	uint64_t chunk = p->connection.asked_count > 0 ? connection_awaited(&p->connection) : 0;
	uint64_t length = metafile_chunk_length(&file.meta, chunk);

	memcpy(body, bytes + chunk * CHUNK_SIZE, length);
	body[length / 2] ^= (uint8_t)!right;
	send_answer(i, PEER_OK, length, body, length);
}

/* One deed; *data is moved behind what it takes. */
static void act(const uint8_t **data, size_t *size)
{
	uint8_t deed = *(*data)++;
	unsigned i = deed >> 6;
	struct peer *p = i < PEERS ? peer_at(i) : NULL;
	size_t count = deed & 7, n = *size - 1 < count ? *size - 1 : count;

	(*size)--;
	if (p == NULL) {		/* nobody's: time passes */
		now_ms += (deed & 32) != 0 ? (deed & 31) * 1000 : deed & 31;
		return;
	}
	if (!connection_is_open(&p->connection)) {
		gone[i] = deed & 1;
		return;
	}
	if (p->connection.connecting) {
		if (deed & 1)
			swarm_fail(&swarm, p, "can't be reached", now_ms);
		else
			swarm_connecting_ended(&swarm, p, now_ms);
		return;
	}
	switch (deed >> 3 & 7) {
	case 0:
	case 1:
		send_chunk(i, true);
		break;
	case 2:
		send_chunk(i, false);
		break;
	case 3:		/* a refusal, with a message of those bytes */
		send_answer(i, (uint8_t)(1 + (deed & 3)), n, *data, n);
		*data += n;
		*size -= n;
		break;
	case 4:		/* not yet */
		send_answer(i, PEER_NO_CHUNK_YET, 8, (const uint8_t *)"not yet\n", 8);
		break;
	case 5:		/* any bytes */
		send_raw(i, *data, n);
		*data += n;
		*size -= n;
		break;
	case 6:		/* a chunk's header and its first bytes, right or wrong */
		send_answer(i, PEER_OK, CHUNK_SIZE, bytes, count * 10);
		break;
	default:
		hang_up(i);
	}
}

/* ---- from beginning to end --------------------------------------------------------------- */

static char path[] = "/tmp/cascade-fuzz.XXXXXX", meta_path[sizeof path + 8];

static void remove_files(void)
{
	unlink(path);
	unlink(meta_path);
}

static void hash_of(const uint8_t *data, size_t size, uint8_t hash[SHA256_HASH_SIZE])
{
	SHA256_CTX ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, data, size);
	sha256_final(&ctx, hash);
}

static void set_up(void)
{
	uint8_t meta[64 + 32 * CHUNKS], whole[SHA256_HASH_SIZE];
	int fd = mkstemp(path);

	for (size_t i = 0; i < LENGTH; i++)
		bytes[i] = (uint8_t)(i * 37 + i / 256);
	hash_of(bytes, LENGTH, whole);
	metafile_encode_header(meta, LENGTH, CHUNK_SIZE, whole);
	for (size_t chunk = 0; chunk < CHUNKS; chunk++) {
		size_t left = LENGTH - chunk * CHUNK_SIZE;
		hash_of(bytes + chunk * CHUNK_SIZE, left < CHUNK_SIZE ? left : CHUNK_SIZE, meta + 64 + 32 * chunk);
	}
	snprintf(meta_path, sizeof meta_path, "%s.cascade", path);
	atexit(remove_files);
	int meta_fd = open(meta_path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || meta_fd < 0 || write(meta_fd, meta, sizeof meta) != (ssize_t)sizeof meta ||
	    close(meta_fd) < 0)
		abort();
	close(fd);
	if (datafile_open(&file, meta_path, path) < 0 || datafile_begin_write(&file) < 0)
		abort();
}

static void begin(void)
{
	struct address named[PEERS];
	struct swarm_options options = {.peers = named, .peer_count = PEERS, .time_scale = 1, .serves = true,
					.self = {.ip = 0x7f000001, .port = 999}};

	for (unsigned i = 0; i <= PEERS; i++) {
		remote[i] = -1;
		gone[i] = false;
		if (i < PEERS)
			named[i] = (struct address){.ip = 0x0a000001 + i, .port = (uint16_t)(1000 + i)};
	}
	for (uint64_t i = 0; i < CHUNKS / 8 + 1; i++)
		atomic_store(&file.held->bits[i], 0);
	atomic_store(&file.held->proven, false);
	atomic_store(&file.held->some, false);
	file.marked = false;
	if (ftruncate(file.fd, 0) < 0 || ftruncate(file.fd, LENGTH) < 0)
		abort();
	now_ms = 1000000;
	if (swarm_begin(&swarm, LENGTH, CHUNK_SIZE, file.meta.cascade_hash, &options) < 0)
		abort();
	arrival_begin(&arrival, &file, 0, &swarm);
	swarm_manage(&swarm, now_ms);
	check_states();
}

/* All are gone but an honest peer, which the tracker names. */
static void finish(void)
{
	struct tracker_entry entry = {.address = {.ip = 0x0a000001 + HONEST, .port = 1000 + HONEST}};
	bool news;

	for (unsigned i = 0; i < PEERS; i++) {
		struct peer *p = peer_at(i);
		gone[i] = true;
		if (p != NULL && connection_is_open(&p->connection) && !p->connection.connecting)
			hang_up(i);
	}
	swarm_add_entries(&swarm, &entry, 1, &news);
	for (int64_t end_ms = now_ms + LONGEST_MS; arrival.held < CHUNKS; now_ms += STEP_MS) {
		struct peer *honest = peer_at(HONEST);
		MUST(now_ms < end_ms);		/* else it starves */
		swarm_manage(&swarm, now_ms);
		if (honest != NULL && connection_is_open(&honest->connection)) {
			if (honest->connection.connecting)
				swarm_connecting_ended(&swarm, honest, now_ms);
			else if (honest->connection.asked_count > 0)
				send_chunk(HONEST, true);
		}
		arrival_flush(&arrival);
		check_states();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (file.path == NULL)
		set_up();
	if (size == 0 || size > 1024)
		return 0;
	begin();
	piece_size = data[0] == 0 ? 65536 : data[0];
	for (data++, size--; size > 0 && arrival.held < CHUNKS; ) {
		act(&data, &size);
		if (size == 0 || (*data & 1) == 0)
			arrival_flush(&arrival);
		swarm_manage(&swarm, now_ms);
		check_states();
	}
	finish();
	check_file();
	swarm_end(&swarm, now_ms);
	return 0;
}
