/* finisher.c - starts the finisher process, and takes what it finds; run by the fetcher. */
#include "fetch/finisher.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/exits.h"
#include "base/io.h"
#include "base/log.h"
#include "base/process.h"
#include "file/whole.h"

/* What the finisher says, each time by one write. */
struct report {
	uint64_t hashed;	/* bytes, so far */
	bool over;
	int right;		/* of whole_check, */
	int read_error;		/* and why that is -1 */
	int sync_error;		/* why it may not be on the disk, or 0 */
};

static struct report finish_file(struct datafile *d, bool whole, void (*progress)(void *arg, uint64_t bytes),
				 void *arg)
{
	struct report r = {.over = true, .right = 1};

	if (whole && (r.right = whole_check(&d->meta, d->fd, progress, arg)) < 0)
		r.read_error = errno;
	if (datafile_sync(d) < 0)
		r.sync_error = errno;
	return r;
}

static void take_report(struct finisher *f, const struct report *r)
{
	datafile_set_synced(f->file, r->sync_error);
	f->status = r->right == 1 ? EXIT_DONE : r->right == 0 ? EXIT_METAFILE : EXIT_UNABLE;
	errno = r->read_error;
	if (r->right < 0)
		log_warn("%s: can't be read back", f->file->path);
	else if (r->right == 0)
		log_warnx("%s: every chunk is right, but the whole isn't what %s says: "
			  "that metafile contradicts itself", f->file->path, f->file->meta.path);
}

/* ---- in the finisher ----------------------------------------------------------------- */

static void tell(void *to, uint64_t hashed)
{
	struct report r = {.hashed = hashed};

	if (io_write(*(int *)to, &r, sizeof r) < 0)
		_exit(EXIT_FAILURE);	/* the fetcher has ended */
}

static _Noreturn void run_finisher(struct datafile *d, bool whole, int to)
{
	struct report r = finish_file(d, whole, tell, &to);

	_exit(io_write(to, &r, sizeof r) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* ---- in the fetcher ------------------------------------------------------------------ */

static void show_nothing(void *unused, uint64_t hashed)
{
	(void)unused;
	(void)hashed;
}

/* Without a process; the other files have to wait. */
static void finish_here(struct finisher *f)
{
	struct report r = finish_file(f->file, f->whole, show_nothing, NULL);

	take_report(f, &r);
}

void finisher_begin(struct finisher *f, struct datafile *d, bool whole)
{
	int to;

	*f = (struct finisher){.file = d, .whole = whole, .from = -1, .hashed = whole ? 0 : d->meta.length};
	if (!whole && !datafile_is_to_sync(d))
		return;
	f->pid = process_fork_piped("finisher", &f->from, &to);
	if (f->pid == 0)
		run_finisher(d, whole, to);
	if (f->pid > 0) {
		close(to);
		return;
	}
	f->from = -1;
	finish_here(f);
}

void finisher_end(struct finisher *f)
{
	if (f->pid <= 0)
		return;
	if (f->from >= 0) {
		kill(f->pid, SIGKILL);
		close(f->from);
	}
	process_wait(f->pid);
	*f = (struct finisher){.from = -1};
}

void finisher_read(struct finisher *f)
{
	struct report r;
	bool lives = io_read(f->from, &r, sizeof r) == sizeof r;

	if (lives && !r.over) {
		f->hashed = r.hashed;
		return;
	}
	close(f->from);
	f->from = -1;
	if (lives)
		take_report(f, &r);
	else
		finish_here(f);
}
