/* mkcascade.c - the metafile maker. Each byte of the data file is hashed twice: as a
 * part of its chunk, and as a part of the whole file. Two processes do that at the same
 * time, and the file is read once: the parent reads a piece into shared memory, hands it
 * to the child, and hashes the chunks in it, while the child goes on with the hash of
 * the whole. That hash can't be computed in parallel and takes longest, so the child
 * does nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/args.h"
#include "base/clock.h"
#include "base/format.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "base/retry.h"
#include "csapp.h"
#include "file/metafile.h"
#include "file/sync.h"
#include "sha256.h"

#define DEFAULT_CHUNK_SIZE (UINT64_C(1) << 20)
#define PIECE_SIZE ((size_t)16 << 20)	/* bytes: SHA256_LANES_MAX chunks of the default size */
#define PIECES 2			/* one for each process */
#define STEP_SIZE ((size_t)256 << 10)	/* bytes read at a time, and handed over */
#define HASHES 2048			/* chunk hashes written at a time, at most */
#define REDRAW_MS 200		/* the progress, on a terminal */
#define TEMPORARIES 100			/* names to try for the unfinished metafile */

static const char usage_text[] =
	"usage: mkcascade [-b CHUNK_SIZE] [-o OUT.cascade] FILE...\n";

static const char help_text[] =
	"Writes a metafile, FILE.cascade, for each FILE, and prints its cascade hash.\n"
	"\n"
	"  -b, --chunk-size SIZE  bytes in a chunk; K, M, G multiply by 1024 (default 1M)\n"
	"  -o, --output OUT       name of the metafile, if there is only one FILE\n"
	"  -h, --help             print this and exit\n"
	"  -V, --version          print the version and exit\n"
	"\n"
	"SIGUSR1 makes it print how much of the FILE is hashed.\n";

/* The name of the unfinished metafile, or empty. A signal handler removes that file. */
static char temporary[4096];

/* Set by SIGUSR1. */
static volatile sig_atomic_t asked_how_far;

/* ---- the hash of the whole ----------------------------------------------- */

/* Both processes use the pieces in turn. Through the pipe `full` the parent sends how
 * many bytes it has added, or 0 at the end of the file. Through `empty` the child sends
 * a byte when a piece may be filled again. End of file in either pipe means that the
 * other process has ended. */
struct whole_hasher {
	struct {
		uint8_t bytes[PIECES * PIECE_SIZE];
		uint8_t hash[SHA256_HASH_SIZE];
	} *shared;
	int full, empty;	/* the parent's ends */
	size_t next;		/* the piece that the parent fills next */
	pid_t child;
};

/* The child: hashes what comes. Returns whether it reached the end of the file. */
static bool hash_whole(struct whole_hasher *w, int full, int empty)
{
	SHA256_CTX ctx;
	size_t length;

	sha256_init(&ctx);
	for (size_t at = 0; rio_readn(full, &length, sizeof length) == sizeof length; ) {
		if (length == 0) {
			sha256_final(&ctx, w->shared->hash);
			return true;
		}
		sha256_update(&ctx, w->shared->bytes + at, length);
		at = (at + length) % sizeof w->shared->bytes;
		if (at % PIECE_SIZE == 0 && rio_writen(empty, "", 1) != 1)
			break;
	}
	return false;
}

static void on_usr1(int sig)
{
	(void)sig;
	asked_how_far = 1;
}

static void start_whole_hasher(struct whole_hasher *w)
{
	static const char tokens[PIECES];
	int full[2], empty[2];

	w->shared = memory_shared(sizeof *w->shared);
	if (w->shared == NULL)
		fatal("no memory to share with the process that hashes the whole");
	if (pipe(full) < 0 || pipe(empty) < 0)
		fatal("can't make a pipe");
	if (rio_writen(empty[1], tokens, PIECES) != PIECES)
		fatal("can't write to a pipe");
	w->child = process_fork(NULL);
	if (w->child < 0)
		fatal("can't fork");
	if (w->child == 0) {
		close(full[1]);
		close(empty[0]);
		_exit(hash_whole(w, full[0], empty[1]) ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	close(full[0]);
	close(empty[1]);
	w->full = full[1];
	w->empty = empty[0];
	w->next = 0;
}

/* Waits until the child has ended. Ends the program if the child has failed. */
static void wait_for_child(struct whole_hasher *w)
{
	const char *why = process_wait(w->child);

	if (why != NULL)
		fatalx("the process that hashes the whole: %s", why);
}

/* A pipe has failed, most likely because the child has ended; else it ends now. */
static _Noreturn void fail_with_child(struct whole_hasher *w, bool by_error)
{
	if (by_error && errno != EPIPE)
		fatal("can't talk to the process that hashes the whole");
	close(w->full);
	close(w->empty);
	wait_for_child(w);
	fatalx("the process that hashes the whole: ended early");
}

/* Returns a piece to fill. Waits until there is one. */
static uint8_t *next_piece(struct whole_hasher *w)
{
	uint8_t *piece = w->shared->bytes + w->next * PIECE_SIZE;
	char token;

	ssize_t n = rio_readn(w->empty, &token, 1);
	if (n != 1)
		fail_with_child(w, n < 0);
	w->next = (w->next + 1) % PIECES;
	return piece;
}

/* Tells the child that length bytes were added; 0: the file has ended. */
static void pass_on(struct whole_hasher *w, size_t length)
{
	if (rio_writen(w->full, &length, sizeof length) != sizeof length)
		fail_with_child(w, true);
}

/* Waits for the hash of all bytes. */
static void finish_whole_hasher(struct whole_hasher *w, uint8_t hash[SHA256_HASH_SIZE])
{
	wait_for_child(w);
	memcpy(hash, w->shared->hash, SHA256_HASH_SIZE);
	close(w->full);
	close(w->empty);
	Munmap(w->shared, sizeof *w->shared);
}

/* ---- the hashes of the chunks -------------------------------------------- */

/* The unfinished metafile. */
struct output {
	const char *path;	/* its final name */
	int fd;
};

static void write_output(const struct output *out, const void *bytes, size_t size)
{
	if (rio_writen(out->fd, bytes, size) != (ssize_t)size)
		fatal("%s: can't be written", out->path);
}

struct chunk_hasher {
	SHA256_CTX ctx;		/* of the current chunk */
	uint64_t chunk_size, got;	/* bytes; got: of the current chunk */
	const struct output *out;
	size_t hashes;		/* not written yet; SHA256_LANES_MAX more always fit */
	uint8_t hash[HASHES][SHA256_HASH_SIZE];
};

static void write_hashes(struct chunk_hasher *c)
{
	write_output(c->out, c->hash, c->hashes * SHA256_HASH_SIZE);
	c->hashes = 0;
}

static void added_hashes(struct chunk_hasher *c, size_t count)
{
	c->hashes += count;
	if (c->hashes > HASHES - SHA256_LANES_MAX)
		write_hashes(c);
}

/* Ends the current chunk. */
static void end_chunk(struct chunk_hasher *c)
{
	sha256_final(&c->ctx, c->hash[c->hashes]);
	added_hashes(c, 1);
	c->got = 0;
}

/* Hashes so many whole chunks at the same time. */
static void hash_whole_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t lanes)
{
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
	uint8_t *hashes[SHA256_LANES_MAX];
	const uint8_t *data[SHA256_LANES_MAX];

	for (size_t l = 0; l < lanes; l++) {
		ctxs[l] = &ctx[l];
		hashes[l] = c->hash[c->hashes + l];
		data[l] = bytes + l * (size_t)c->chunk_size;
		sha256_init(&ctx[l]);
	}
	sha256_update_lanes(ctxs, data, (size_t)c->chunk_size, lanes);
	sha256_final_lanes(ctxs, hashes, lanes);
	added_hashes(c, lanes);
}

static void hash_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		size_t take, lanes = sha256_lanes();
		if (lanes > len / c->chunk_size)
			lanes = (size_t)(len / c->chunk_size);
		if (c->got == 0 && lanes > 0) {
			hash_whole_chunks(c, bytes, lanes);
			take = lanes * (size_t)c->chunk_size;
		} else {
			uint64_t missing = c->chunk_size - c->got;
			take = missing < len ? (size_t)missing : len;
			if (c->got == 0)
				sha256_init(&c->ctx);
			sha256_update(&c->ctx, bytes, take);
			c->got += take;
			if (c->got == c->chunk_size)
				end_chunk(c);
		}
		bytes += take;
		len -= take;
	}
}

/* ---- one metafile -------------------------------------------------------- */

static void remove_temporary(void)
{
	if (temporary[0] != '\0')
		unlink(temporary);
}

static void on_signal(int sig)
{
	remove_temporary();
	log_erase();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The length of the folder in the path, with the last slash. */
static size_t folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* Makes a new file in the folder of this path, and puts its name into temporary. The
 * name is not made from the path, which may be as long as a name can be. Returns its
 * descriptor, or -1 with errno. */
static int make_temporary(const char *path)
{
	char name[sizeof temporary];
	int fd = -1;

	errno = EEXIST;
	for (int i = 0; fd < 0 && errno == EEXIST && i < TEMPORARIES; i++) {
		int n = snprintf(name, sizeof name, "%.*smkcascade.%ld.%d",
				 (int)folder_length(path), path, (long)getpid(), i);
		if (n < 0 || (size_t)n >= sizeof name) {
			errno = ENAMETOOLONG;
			return -1;
		}
		fd = retry_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	}
	if (fd >= 0)
		memcpy(temporary, name, sizeof name);
	return fd;
}

static int open_temporary(const char *path)
{
	sigset_t all, before;

	/* A signal comes either before the file is made or when its name is in temporary. */
	Sigfillset(&all);
	Sigprocmask(SIG_SETMASK, &all, &before);
	int fd = make_temporary(path);
	if (fd < 0)
		fatal("%s: can't be made", path);
	Sigprocmask(SIG_SETMASK, &before, NULL);
	return fd;
}

/* The data file. */
struct input {
	const char *path;
	int fd;
	struct stat st;		/* when it was opened */
	uint64_t size;		/* bytes, then */
	int64_t begun_ms;
};

static void open_input(struct input *in, const char *path)
{
	in->path = path;
	in->begun_ms = clock_ms();
	in->fd = retry_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);	/* a FIFO must not block */
	if (in->fd < 0 || fstat(in->fd, &in->st) < 0)
		fatal("%s", path);
	if (!S_ISREG(in->st.st_mode) && !S_ISBLK(in->st.st_mode))
		fatalx("%s: not a regular file or a block device", path);
	if (io_file_size(in->fd, &in->size) < 0 || lseek(in->fd, 0, SEEK_SET) < 0)
		fatal("%s", path);
}

/* Ends the program if the file has changed since it was opened. */
static void check_unchanged(const struct input *in)
{
	struct stat now;

	if (fstat(in->fd, &now) < 0)
		fatal("%s", in->path);
	struct stamp before = stamp_of(&in->st), after = stamp_of(&now);
	if (!stamp_is_unwritten(&after, &before))
		fatalx("%s: it changed while it was read", in->path);
}

/* Redraws the line on a terminal, if it is time to. */
static void show_progress(const struct input *in, uint64_t done)
{
	static int64_t next_ms;
	char whole[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	char left[FORMAT_DURATION_SIZE] = "?", line[128];
	int64_t now_ms = clock_ms();
	double size = (double)in->size, part = (double)done;

	if (now_ms < next_ms || !log_on_terminal() || size <= 0)
		return;
	next_ms = now_ms + REDRAW_MS;
	double seconds = (double)(now_ms - in->begun_ms) / 1000, rate = seconds > 0 ? part / seconds : 0;
	if (rate > 0 && part <= size)
		format_duration((size - part) / rate, left);
	double percent = part < size ? 99 * part / size : 100;
	int n = snprintf(line, sizeof line, "\r%3.0f%% of %s  %s/s  %s left\033[K", percent,
			 format_bytes(size, whole), format_bytes(rate, per_second), left);
	log_draw(line, (size_t)n);
}

static void say_how_far(const struct input *in, uint64_t length)
{
	if (asked_how_far)
		log_status("%s: %" PRIu64 " of %" PRIu64 " bytes hashed", in->path, length, in->size);
	asked_how_far = 0;
}

/* Reads a piece into *piece, and hands it over step by step. start: its offset in the
 * file. Returns its length, which is less than PIECE_SIZE only at the end of the file. */
static size_t read_piece(const struct input *in, uint64_t start, struct whole_hasher *w,
			 uint8_t **piece)
{
	size_t length = 0;
	ssize_t n;

	*piece = next_piece(w);
	do {
		size_t left = PIECE_SIZE - length;
		n = rio_readn(in->fd, *piece + length, left < STEP_SIZE ? left : STEP_SIZE);
		if (n < 0)
			fatal("%s: can't be read", in->path);
		pass_on(w, (size_t)n);
		length += (size_t)n;
		say_how_far(in, start + length);
		show_progress(in, start + length);
	} while (n > 0 && length < PIECE_SIZE);
	return length;
}

/* Writes the chunk hashes to out. Returns the number of bytes in the file. */
static uint64_t hash_file(const struct input *in, uint64_t chunk_size, const struct output *out,
			  uint8_t data_hash[SHA256_HASH_SIZE])
{
	struct chunk_hasher chunks = {.chunk_size = chunk_size, .out = out};
	struct whole_hasher whole;
	uint64_t length = 0;
	uint8_t *piece;
	size_t got;

	start_whole_hasher(&whole);
	do {
		got = read_piece(in, length, &whole, &piece);
		hash_chunks(&chunks, piece, got);
		length += got;
	} while (got == PIECE_SIZE);
	if (chunks.got > 0)
		end_chunk(&chunks);
	write_hashes(&chunks);
	finish_whole_hasher(&whole, data_hash);
	return length;
}

/* Ends the program unless the metafile may have this name. An existing file is replaced
 * only if it is a regular file, and not the data file. */
static void check_output(const char *path, const struct input *in)
{
	struct stat old;

	if (lstat(path, &old) < 0) {
		if (errno != ENOENT)
			fatal("%s", path);
	} else if (S_ISLNK(old.st_mode)) {
		fatalx("%s: a symbolic link; it is not replaced", path);
	} else if (!S_ISREG(old.st_mode)) {
		fatalx("%s: not a regular file; it is not replaced", path);
	} else if (old.st_ino == in->st.st_ino && old.st_dev == in->st.st_dev) {
		fatalx("%s: its metafile would overwrite it", in->path);
	}
}

/* The hash of the metafile: its name on the network. */
static void hash_metafile(const struct output *out, uint8_t hash[SHA256_HASH_SIZE])
{
	static uint8_t buffer[STEP_SIZE];
	SHA256_CTX ctx;
	ssize_t n;

	if (lseek(out->fd, 0, SEEK_SET) < 0)
		fatal("%s", temporary);
	sha256_init(&ctx);
	while ((n = rio_readn(out->fd, buffer, sizeof buffer)) > 0)
		sha256_update(&ctx, buffer, (size_t)n);
	if (n < 0)
		fatal("%s: can't be read back", out->path);
	sha256_final(&ctx, hash);
}

/* One line, as sha256sum(1) would print it. */
static void print_hash(const uint8_t hash[SHA256_HASH_SIZE], const char *path)
{
	for (unsigned i = 0; i < SHA256_HASH_SIZE; i++)
		printf("%02x", hash[i]);
	printf("  %s\n", path);
	if (fflush(stdout) != 0)
		fatal("%s is made, but standard output can't be written", path);
}

static void make_metafile(const char *path, const char *out_path, uint64_t chunk_size)
{
	uint8_t header[METAFILE_HEADER_SIZE] = {0};
	uint8_t data_hash[SHA256_HASH_SIZE], cascade_hash[SHA256_HASH_SIZE];
	struct output out = {.path = out_path};
	struct input in;

	open_input(&in, path);
	check_output(out_path, &in);
	out.fd = open_temporary(out_path);
	write_output(&out, header, sizeof header);
	uint64_t length = hash_file(&in, chunk_size, &out, data_hash);
	metafile_encode_header(header, length, chunk_size, data_hash);
	if (lseek(out.fd, 0, SEEK_SET) < 0)
		fatal("%s", temporary);
	write_output(&out, header, sizeof header);
	hash_metafile(&out, cascade_hash);
	/* The bytes are on the disk before the file gets its name: the name never belongs
	 * to half a metafile. */
	if (sync_file(out.fd) < 0 || close(out.fd) < 0)
		fatal("%s: can't be written", out_path);
	check_output(out_path, &in);	/* the first check may be hours ago */
	check_unchanged(&in);
	if (rename(temporary, out_path) < 0)
		fatal("%s: can't be made", out_path);
	temporary[0] = '\0';
	if (sync_folder(out_path) < 0)
		fatal("%s: its name may not be on the disk yet", out_path);
	close(in.fd);		/* it was only read */
	log_erase();
	print_hash(cascade_hash, out_path);
}

/* ---- command line -------------------------------------------------------- */

/* Ends the program if the name has a ':' in it, which separates names in cascade's
 * arguments. */
static void check_name(const char *path)
{
	if (strchr(path + folder_length(path), ':') != NULL)
		fatalx("%s: cascade can't open a metafile with ':' in its name; "
		       "-o gives it another name", path);
}

static void make_metafile_beside(const char *path, uint64_t chunk_size)
{
	char out[sizeof temporary];
	int n = snprintf(out, sizeof out, "%s" METAFILE_SUFFIX, path);
	struct stat st;

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
		fatalx("%s: a block device; -o names its metafile", path);

	if (n < 0 || (size_t)n >= sizeof out)
		fatalx("%s: its name is too long", path);
	if (metafile_is_named(path))
		fatalx("%s: looks like a metafile; use -o to make a metafile of it", path);
	check_name(path);
	make_metafile(path, out, chunk_size);
}

static void handle_signals(void)
{
	static const int endings[] = {SIGINT, SIGTERM, SIGHUP};

	atexit(remove_temporary);
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
		if (Signal(endings[i], on_signal) == SIG_IGN)
			Signal(endings[i], SIG_IGN);	/* nohup(1) */
	Signal(SIGUSR1, on_usr1);
	Signal(SIGCHLD, SIG_DFL);	/* if it were ignored, wait would not tell how the child ended */
	Signal(SIGPIPE, SIG_IGN);	/* write fails instead */
	Signal(SIGXFSZ, SIG_IGN);	/* likewise, if a file may not grow */
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"chunk-size", required_argument, NULL, 'b'},
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	uint64_t chunk_size = DEFAULT_CHUNK_SIZE;
	const char *out = NULL;
	int option;

	Signal(SIGUSR1, SIG_IGN);	/* until there is something to report */
	args_program("mkcascade", usage_text, help_text);
	while ((option = getopt_long(argc, argv, "b:o:hV", options, NULL)) != -1)
		switch (option) {
		case 'b':
			if (!args_size(optarg, 1, METAFILE_LENGTH_MAX, &chunk_size))
				args_misuse("not a chunk size: %s", optarg);
			break;
		case 'o':
			out = optarg;
			break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
	if (optind == argc)
		args_misuse("no FILE");
	if (out != NULL && argc - optind > 1)
		args_misuse("--output goes with one FILE");
	if (out != NULL && strlen(out) == 0)
		args_misuse("--output needs a name");

	handle_signals();
	if (out != NULL) {
		check_name(out);
		make_metafile(argv[optind], out, chunk_size);
		if (!metafile_is_named(out))
			log_warnx("%s: made, but cascade opens only metafiles called NAME" METAFILE_SUFFIX,
				  out);
	} else {
		for (; optind < argc; optind++)
			make_metafile_beside(argv[optind], chunk_size);
	}
	return 0;
}
