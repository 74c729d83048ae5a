/* mkcascade.c - makes metafiles.
 *
 * A metafile holds two hashes of every byte: that of its chunk, and that of
 * the whole. Two processes compute them side by side, from one reading of the
 * file: the parent reads a piece into shared memory, hands it to the child, and
 * hashes the chunks in it while the child goes on with the hash of the whole.
 * That one can only be computed byte after byte, and takes longest: its process
 * does nothing else. */
#define _DEFAULT_SOURCE 1	/* MAP_ANONYMOUS, before POSIX.1-2024 */
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
#include "base/log.h"
#include "base/process.h"
#include "base/retry.h"
#include "csapp.h"
#include "file/metafile.h"
#include "sha256.h"

#define DEFAULT_CHUNK_SIZE (UINT64_C(1) << 20)
#define PIECE_SIZE ((size_t)16 << 20)	/* bytes: SHA256_LANES_MAX chunks of the default size */
#define PIECES 2			/* so that neither process waits for the other */
#define STEP_SIZE ((size_t)256 << 10)	/* bytes read at a time, and handed over */
#define HASHES 2048			/* chunk hashes written at a time, or some fewer */
#define TEMPORARIES 100			/* names that are tried for the unfinished metafile */

static const char usage_text[] =
	"usage: mkcascade [-b CHUNK_SIZE] [-o OUT.cascade] FILE...\n";

static const char help_text[] =
	"Writes a metafile, FILE.cascade, for each FILE.\n"
	"\n"
	"  -b, --chunk-size SIZE  bytes in a chunk; K, M, G multiply by 1024 (default 1M)\n"
	"  -o, --output OUT       the metafile's name, where there is only one FILE\n"
	"  -h, --help             print this and exit\n"
	"  -V, --version          print the version and exit\n"
	"\n"
	"SIGUSR1 makes it say how much of the FILE is hashed.\n";

/* The name of the unfinished metafile, or empty: what a signal must remove. */
static char temporary[4096];

/* Set by SIGUSR1. */
static volatile sig_atomic_t asked_how_far;

/* ---- the hash of the whole ----------------------------------------------- */

/* Both processes go round the pieces. The pipe `full` carries the number of bytes
 * that were added, or 0 at the end of the file; a byte in `empty` says that a
 * piece may be filled again. End of file in either means that the other process
 * is gone. */
struct whole_hasher {
	struct {
		uint8_t bytes[PIECES * PIECE_SIZE];
		uint8_t hash[SHA256_HASH_SIZE];
	} *shared;
	int full, empty;	/* the parent's ends */
	size_t next;		/* the piece that the parent fills next */
	pid_t child;
};

/* Returns whether it came to the end of the file. */
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

	w->shared = Mmap(NULL, sizeof *w->shared, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(full) < 0 || pipe(empty) < 0)
		fatal("can't make a pipe");
	if (rio_writen(empty[1], tokens, PIECES) != PIECES)
		fatal("can't write to a pipe");
	Signal(SIGUSR1, SIG_IGN);	/* only the parent answers it */
	w->child = process_fork(NULL);
	if (w->child < 0)
		fatal("can't fork");
	if (w->child == 0) {
		close(full[1]);
		close(empty[0]);
		_exit(hash_whole(w, full[0], empty[1]) ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	Signal(SIGUSR1, on_usr1);
	close(full[0]);
	close(empty[1]);
	w->full = full[1];
	w->empty = empty[0];
	w->next = 0;
}

/* Waits for the end of the child, which must have succeeded. */
static void wait_for_child(struct whole_hasher *w)
{
	const char *why = process_wait(w->child);

	if (why != NULL)
		fatalx("the process that hashes the whole: %s", why);
}

/* A pipe has failed: the child has closed its end, and only its end does that. */
static _Noreturn void fail_with_child(struct whole_hasher *w)
{
	wait_for_child(w);
	fatalx("the process that hashes the whole: ended early");
}

/* Waits for a piece that may be filled. */
static uint8_t *next_piece(struct whole_hasher *w)
{
	uint8_t *piece = w->shared->bytes + w->next * PIECE_SIZE;
	char token;

	if (rio_readn(w->empty, &token, 1) != 1)
		fail_with_child(w);
	w->next = (w->next + 1) % PIECES;
	return piece;
}

/* Hands over so many bytes more, or the end of the file. */
static void hand_over(struct whole_hasher *w, size_t length)
{
	if (rio_writen(w->full, &length, sizeof length) != sizeof length)
		fail_with_child(w);
}

/* Waits for the hash of all that was handed over. */
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
	const char *path;	/* its name when it is done */
	int fd;
};

static void write_output(const struct output *out, const void *bytes, size_t size)
{
	if (rio_writen(out->fd, bytes, size) != (ssize_t)size)
		fatal("%s: can't be written", out->path);
}

struct chunk_hasher {
	SHA256_CTX ctx;		/* of the chunk that has begun */
	uint64_t chunk_size, got;	/* bytes; how many of that chunk came */
	const struct output *out;
	size_t hashes;		/* that are not written yet; there is room for SHA256_LANES_MAX more */
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

/* Ends the chunk that has begun. */
static void end_chunk(struct chunk_hasher *c)
{
	sha256_final(&c->ctx, c->hash[c->hashes]);
	added_hashes(c, 1);
	c->got = 0;
}

/* Takes that many whole chunks. */
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
	signal(sig, SIG_DFL);
	raise(sig);
}

/* The folder's part of the path: its length, with the last slash. */
static size_t folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* Makes a new file in the folder of that path, and puts its name into temporary.
 * The name does not follow from the path: that may be as long as a name can be.
 * Returns -1 with errno. */
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
		fd = retry_open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	}
	if (fd >= 0)
		memcpy(temporary, name, sizeof name);
	return fd;
}

static int open_temporary(const char *path)
{
	sigset_t all, before;

	/* A signal comes before the file is there, or when its name is known. */
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
};

static void open_input(struct input *in, const char *path)
{
	in->path = path;
	in->fd = retry_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);	/* a FIFO must not hold us up */
	if (in->fd < 0 || fstat(in->fd, &in->st) < 0)
		fatal("%s", path);
	if (!S_ISREG(in->st.st_mode))
		fatalx("%s: not a regular file", path);
}

/* Ends the program if the file is not what it was when it was opened. */
static void check_unchanged(const struct input *in)
{
	struct stat now;

	if (fstat(in->fd, &now) < 0)
		fatal("%s", in->path);
	struct stamp before = stamp_of(&in->st), after = stamp_of(&now);
	if (!stamp_is_unwritten(&after, &before))
		fatalx("%s: it changed while it was read", in->path);
}

static void say_how_far(const struct input *in, uint64_t length)
{
	if (asked_how_far)
		log_status("%s: %" PRIu64 " of %jd bytes hashed", in->path, length,
			   (intmax_t)in->st.st_size);
	asked_how_far = 0;
}

/* Reads a piece into *piece, and hands it over step by step. start: its place in
 * the file. Returns its length, which is less than the size of a piece at the end
 * of the file, and only there. */
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
		hand_over(w, (size_t)n);
		length += (size_t)n;
		say_how_far(in, start + length);
	} while (n > 0 && length < PIECE_SIZE);
	return length;
}

/* Returns the number of bytes in the file. The chunk hashes go to out. */
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

/* Ends the program unless the metafile may get this name: only a regular file,
 * but not the data file, is replaced. */
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

/* Writes to the disk what the folder of the path says: which file has that name. */
static void sync_folder(const char *path)
{
	char folder[sizeof temporary];

	snprintf(folder, sizeof folder, "%.*s.", (int)folder_length(path), path);
	int fd = retry_open(folder, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0 && errno == EACCES)
		return;		/* one may make files in it, but not read it */
	/* EINVAL: this file system can't. */
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
		fatal("%s: its name may not be on the disk yet", path);
	close(fd);
}

static void make_metafile(const char *path, const char *out_path, uint64_t chunk_size)
{
	uint8_t header[METAFILE_HEADER_SIZE] = {0}, data_hash[SHA256_HASH_SIZE];
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
	/* On the disk before it gets its name, so that the name never stands
	 * for half a metafile. */
	if (fsync(out.fd) < 0 || close(out.fd) < 0)
		fatal("%s: can't be written", out_path);
	check_output(out_path, &in);	/* the first look may be hours ago */
	check_unchanged(&in);
	if (rename(temporary, out_path) < 0)
		fatal("%s: can't be made", out_path);
	temporary[0] = '\0';
	sync_folder(out_path);
	close(in.fd);		/* was only read */
}

/* ---- command line -------------------------------------------------------- */

/* Ends the program if no peer could be told the name: cascade parts names at ':'. */
static void check_name(const char *path)
{
	if (strchr(path + folder_length(path), ':') != NULL)
		fatalx("%s: cascade can't be given a metafile with ':' in its name; "
		       "-o gives it another", path);
}

static void make_metafile_beside(const char *path, uint64_t chunk_size)
{
	char out[sizeof temporary], *data_path = metafile_data_path(path);
	int n = snprintf(out, sizeof out, "%s" METAFILE_SUFFIX, path);

	if (n < 0 || (size_t)n >= sizeof out)
		fatalx("%s: its name is too long", path);
	if (data_path != NULL)
		fatalx("%s: looks like a metafile; -o makes one of it all the same", path);
	check_name(path);
	make_metafile(path, out, chunk_size);
}

static void handle_signals(void)
{
	static const int endings[] = {SIGINT, SIGTERM, SIGHUP};

	atexit(remove_temporary);
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++)
		if (Signal(endings[i], on_signal) == SIG_IGN)
			Signal(endings[i], SIG_IGN);	/* as nohup wants it */
	Signal(SIGUSR1, on_usr1);
	Signal(SIGCHLD, SIG_DFL);	/* ignored, it would hide how the child ended */
	Signal(SIGPIPE, SIG_IGN);	/* a dead child is an error of write, */
	Signal(SIGXFSZ, SIG_IGN);	/* and so is a file that may not grow */
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
	} else {
		for (; optind < argc; optind++)
			make_metafile_beside(argv[optind], chunk_size);
	}
	return 0;
}
