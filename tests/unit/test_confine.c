/* test_confine.c - what a confined process can't do any more, and what it still can.
 *
 * Each act is tried twice: by a process that was forked and confined, and before that by one that
 * was only forked, where it must succeed: else its failing would mean nothing. */
#define _DEFAULT_SOURCE 1	/* syscall */
#include "base/confine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "unit.h"

#define BROKEN 255		/* of a process: its exit status if something else went wrong */

static char allowed_path[UNIT_PATH_SIZE], second_path[UNIT_PATH_SIZE];
static char other_path[UNIT_PATH_SIZE], new_path[UNIT_PATH_SIZE];
static int allowed_fd, second_fd, other_fd;
static const char content[] = "what may be read";

static int make_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0777);

	if (fd < 0 || write(fd, content, sizeof content) != sizeof content)
		abort();
	return fd;
}

static void make_files(void)
{
	allowed_fd = make_file(unit_path(allowed_path, "allowed"));
	second_fd = make_file(unit_path(second_path, "second"));
	other_fd = make_file(unit_path(other_path, "other"));
	unit_path(new_path, "new");
}

static void remove_files(void)
{
	unlink(new_path);
	rmdir(new_path);
	unlink(allowed_path);
	unlink(second_path);
	unlink(other_path);
	close(allowed_fd);
	close(second_fd);
	close(other_fd);
}

/* ---- Acts: each returns 0, or the errno that it failed with ---- */

static int read_path(const char *path)
{
	char bytes[sizeof content];
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return errno;
	if (read(fd, bytes, sizeof bytes) != sizeof bytes || memcmp(bytes, content, sizeof bytes) != 0)
		return BROKEN;
	return 0;
}

static int read_allowed(void)
{
	return read_path(allowed_path);
}

static int open_descriptors_work(void)
{
	static char bytes[sizeof content];
	int pair[2];

	if (pread(other_fd, bytes, sizeof bytes, 0) != sizeof bytes ||
	    memcmp(bytes, content, sizeof bytes) != 0)
		return BROKEN;
	if (pwrite(other_fd, content, sizeof content, 0) != sizeof content)
		return errno;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		return errno;
	memset(bytes, 0, sizeof bytes);
	if (write(pair[0], content, sizeof content) != sizeof content ||
	    read(pair[1], bytes, sizeof bytes) != sizeof bytes || memcmp(bytes, content, sizeof bytes) != 0)
		return BROKEN;
	return 0;
}

/* Runs an act that is confined to no file, or to the two, in a process whose parent is not
 * confined. */
static int confine_count;
static int (*confined_act)(void);

static int confine_and_act(void)
{
	return confine_self(confine_count) < 0 ? BROKEN : confined_act();
}

static int prepare_and_fork(void)
{
	const int fds[] = {allowed_fd, second_fd};

	confine_count = confine_prepare(fds, 2);
	return unit_in_child(confine_and_act);
}

static int confined(int (*act)(void))
{
	confined_act = act;
	return unit_in_child(prepare_and_fork);
}

#if defined(__linux__) && !defined(PORTABLE)
#include <sys/prctl.h>
#include <sys/syscall.h>

static int read_second(void)
{
	return read_path(second_path);
}

static int read_other(void)
{
	return read_path(other_path);
}

static int read_passwords(void)
{
	return open("/etc/passwd", O_RDONLY) < 0 ? errno : 0;
}

static int list_directory(void)
{
	return opendir(unit_scratch) == NULL ? errno : 0;
}

static int write_allowed(void)
{
	return open(allowed_path, O_RDWR) < 0 ? errno : 0;
}

static int truncate_allowed(void)
{
	return truncate(allowed_path, sizeof content) < 0 ? errno : 0;
}

static int create_file(void)
{
	return open(new_path, O_WRONLY | O_CREAT | O_EXCL, 0666) < 0 ? errno : 0;
}

static int create_directory(void)
{
	return mkdir(new_path, 0777) < 0 ? errno : 0;
}

static int create_fifo(void)
{
	return mkfifo(new_path, 0666) < 0 ? errno : 0;
}

static int create_symlink(void)
{
	return symlink(other_path, new_path) < 0 ? errno : 0;
}

static int rename_allowed(void)
{
	return rename(allowed_path, new_path) < 0 ? errno : 0;
}

static int remove_allowed(void)
{
	return unlink(allowed_path) < 0 ? errno : 0;
}

/* Another file under the name of the one that was allowed. */
static int read_replaced(void)
{
	return read_path(allowed_path);
}

static int start_program(void)
{
	execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL);
	return errno;
}

static struct sockaddr_in listening;	/* where connect_tcp finds somebody */

static int connect_tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 || connect(fd, (struct sockaddr *)&listening, sizeof listening) < 0 ? errno : 0;
}

static int bind_tcp(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) < 0 ? errno : 0;
}

static struct sockaddr_un abstract;	/* a listening socket without a file */
static socklen_t abstract_size;

static int connect_abstract(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	return fd < 0 || connect(fd, (struct sockaddr *)&abstract, abstract_size) < 0 ? errno : 0;
}

static struct sockaddr_un named;	/* a listening socket with a file */

static int connect_named(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	return fd < 0 || connect(fd, (struct sockaddr *)&named, sizeof named) < 0 ? errno : 0;
}

static int send_udp(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	return fd < 0 || sendto(fd, "", 1, 0, (struct sockaddr *)&listening, sizeof listening) < 0 ? errno : 0;
}

/* Without bind, the system chooses address and port. */
static int listen_unbound(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return fd < 0 || listen(fd, 8) < 0 ? errno : 0;
}

static int look_at_other(void)
{
	struct stat st;

	return stat(other_path, &st) < 0 ? errno : 0;
}

static int change_mode_of_other(void)
{
	return chmod(other_path, 0600) < 0 ? errno : 0;
}

static int change_owner_of_other(void)
{
	return chown(other_path, geteuid(), getegid()) < 0 ? errno : 0;
}

static int change_times_of_other(void)
{
	return utimensat(AT_FDCWD, other_path, NULL, 0) < 0 ? errno : 0;
}

static int link_allowed(void)
{
	return link(allowed_path, new_path) < 0 ? errno : 0;
}

static int trace_parent(void)
{
	char path[32], byte;

	/* That file's descriptor would show it just as well; it fails when it is opened. */
	snprintf(path, sizeof path, "/proc/%ld/mem", (long)getppid());
	int fd = open(path, O_RDONLY);
	if (fd >= 0)
		return pread(fd, &byte, 1, (off_t)(uintptr_t)content) == 1 ? 0 : errno;
	return errno;
}

static int signal_parent(void)
{
	return kill(getppid(), SIGCONT) < 0 ? errno : 0;
}

static int signal_itself(void)
{
	return kill(getpid(), SIGCONT) < 0 ? errno : 0;
}

static pid_t sibling;	/* another child, confined by itself */

static int signal_sibling(void)
{
	return kill(sibling, SIGCONT) < 0 ? errno : 0;
}

static int fork_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return pid < 0 ? errno : unit_wait(pid);
}

/* ---- Tests ---- */

/* The act succeeds where nothing is confined, and fails so where it is. The files are made
 * afresh between. */
static bool is_refused(int (*act)(void), int error)
{
	int without, with;

	make_files();
	without = unit_in_child(act);
	remove_files();
	make_files();
	with = confined(act);
	remove_files();
	if (without == 0 && with == error)
		return true;
	fprintf(stderr, "unconfined: %s; confined: %s\n", strerror(without), strerror(with));
	return false;
}

static bool is_allowed(int (*act)(void))
{
	int with;

	make_files();
	with = confined(act);
	remove_files();
	if (with == 0)
		return true;
	fprintf(stderr, "confined: %s\n", strerror(with));
	return false;
}

static void test_named_files_can_be_read(void)
{
	CHECK(is_allowed(read_allowed));
	CHECK(is_allowed(read_second));
}

static void test_open_descriptors_go_on_working(void)
{
	CHECK(is_allowed(open_descriptors_work));
}

static void test_no_other_file_can_be_opened(void)
{
	CHECK(is_refused(read_other, EACCES));
	CHECK(is_refused(read_passwords, EACCES));
	CHECK(is_refused(list_directory, EACCES));
}

static void test_named_files_cannot_be_written(void)
{
	CHECK(is_refused(write_allowed, EACCES));
}

static void test_named_files_cannot_be_cut(void)
{
	CHECK(is_refused(truncate_allowed, EACCES));
}

static void test_nothing_can_be_created(void)
{
	CHECK(is_refused(create_file, EACCES));
	CHECK(is_refused(create_directory, EACCES));
	CHECK(is_refused(create_fifo, EACCES));
	CHECK(is_refused(create_symlink, EACCES));
}

static void test_nothing_can_be_renamed_or_removed(void)
{
	CHECK(is_refused(rename_allowed, EACCES));
	CHECK(is_refused(link_allowed, EACCES));
	CHECK(is_refused(remove_allowed, EACCES));
}

/* What is allowed is the file, not its name. */
static int replace_and_try(void)
{
	const int fds[] = {allowed_fd};

	confine_count = confine_prepare(fds, 1);
	confined_act = read_replaced;
	if (confine_count < 0 || rename(other_path, allowed_path) < 0)
		return BROKEN;
	return unit_in_child(confine_and_act);
}

static void test_a_file_in_the_place_of_a_named_one_cannot_be_read(void)
{
	make_files();
	CHECK(unit_in_child(replace_and_try) == EACCES);
	CHECK(unit_in_child(read_replaced) == 0);	/* by others it can */
	remove_files();
}

static int prepare_for_nothing(void)
{
	confine_count = confine_prepare(NULL, 0);
	confined_act = read_allowed;
	return confine_count < 0 ? BROKEN : unit_in_child(confine_and_act);
}

static void test_without_a_file_nothing_can_be_read(void)
{
	make_files();
	CHECK(unit_in_child(prepare_for_nothing) == EACCES);
	remove_files();
}

static void test_no_program_can_be_started(void)
{
	CHECK(is_refused(start_program, EACCES));
}

static void test_no_tcp(void)
{
	int fd = unit_bound_socket(&listening);

	CHECK(listen(fd, 8) == 0);
	CHECK(is_refused(connect_tcp, EACCES));
	CHECK(is_refused(bind_tcp, EACCES));
	close(fd);
}

static void test_no_abstract_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	abstract = (struct sockaddr_un){.sun_family = AF_UNIX};
	int n = snprintf(abstract.sun_path + 1, sizeof abstract.sun_path - 1, "%s", unit_scratch);
	abstract_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
	if (!CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&abstract, abstract_size) == 0 && listen(fd, 8) == 0))
		return;
	CHECK(is_refused(connect_abstract, EPERM));
	close(fd);
}

static void test_no_other_process_can_be_looked_into(void)
{
	if (unit_in_child(trace_parent) != 0)
		unit_skip("nobody may look into a parent here");
	else
		CHECK(is_refused(trace_parent, EACCES));
}

/* What confine.h says that it leaves. */
static void test_what_is_left(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
	socklen_t size = sizeof listening;

	named = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(named.sun_path, sizeof named.sun_path, "%s/socket", unit_scratch);
	listening = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CHECK(bind(fd, (struct sockaddr *)&named, sizeof named) == 0 && listen(fd, 8) == 0);
	CHECK(bind(udp, (struct sockaddr *)&listening, sizeof listening) == 0 &&
	      getsockname(udp, (struct sockaddr *)&listening, &size) == 0);
	CHECK(is_allowed(connect_named));
	CHECK(is_allowed(send_udp));
	CHECK(is_allowed(listen_unbound));
	CHECK(is_allowed(look_at_other));
	CHECK(is_allowed(change_mode_of_other));
	CHECK(is_allowed(change_owner_of_other));
	CHECK(is_allowed(change_times_of_other));
	close(fd);
	close(udp);
	unlink(named.sun_path);
}

static void test_no_signal_to_others(void)
{
	CHECK(is_refused(signal_parent, EPERM));
	CHECK(is_allowed(signal_itself));
}

static void test_no_signal_to_a_sibling(void)
{
	int confinement = confine_prepare(NULL, 0), ready[2];
	char byte;

	unit_pipe(ready);
	sibling = unit_fork();
	if (sibling == 0) {
		if (confine_self(confinement) == 0 && write(ready[1], "", 1) == 1)
			pause();
		_exit(BROKEN);
	}
	close(confinement);
	CHECK(unit_read(ready[0], &byte, 1) == 1);
	CHECK(is_refused(signal_sibling, EPERM));
	kill(sibling, SIGKILL);
	unit_wait(sibling);
	close(ready[0]);
	close(ready[1]);
}

/* The system bounds the processes of all users but root. */
static void test_no_process_can_be_forked(void)
{
	if (geteuid() == 0)
		CHECK(is_allowed(fork_process));
	else
		CHECK(is_refused(fork_process, EAGAIN));
}

/* Whoever prepares goes on as before, but for one thing: no program that it starts gains rights. */
static int prepare_and_go_on(void)
{
	const int fds[] = {allowed_fd};
	int confinement = confine_prepare(fds, 1);

	if (confinement < 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return BROKEN;
	if (read_other() != 0 || create_file() != 0 || signal_parent() != 0)
		return BROKEN;
	return start_program();
}

static void test_who_prepares_is_not_confined(void)
{
	make_files();
	CHECK(unit_in_child(prepare_and_go_on) == 0);
	remove_files();
}

static int confine_and_look(void)
{
	const int fds[] = {allowed_fd};
	int confinement = confine_prepare(fds, 1);

	if (confinement < 0 || !(fcntl(confinement, F_GETFD) & FD_CLOEXEC))
		return BROKEN;
	if (confine_self(confinement) < 0)
		return errno;
	return fcntl(confinement, F_GETFD) == -1 && errno == EBADF ? 0 : BROKEN;
}

static void test_the_confinement_is_closed_once_it_is_on(void)
{
	make_files();
	CHECK(unit_in_child(confine_and_look) == 0);
	remove_files();
}

static int prepare_with_a_bad_descriptor(void)
{
	const int fds[] = {allowed_fd, -1};
	int before = unit_open_fds();

	return confine_prepare(fds, 2) == -1 && unit_open_fds() == before ? 0 : BROKEN;
}

static void test_a_bad_descriptor_is_an_error_and_leaves_nothing_open(void)
{
	make_files();
	CHECK(unit_in_child(prepare_with_a_bad_descriptor) == 0);
	remove_files();
}

static int confine_with_what_is_none(void)
{
	errno = 0;
	return confine_self(other_fd) == -1 && errno != 0 ? 0 : BROKEN;
}

static void test_what_is_no_confinement_is_an_error(void)
{
	make_files();
	CHECK(unit_in_child(confine_with_what_is_none) == 0);
	remove_files();
}

/* Runs the test if the kernel's Landlock is at least of that version. */
static long version;

static void run_from(long needed, void (*test)(void), const char *name)
{
	if (version >= needed)
		unit_run(test, name);
	else
		printf("skipped %s: Landlock %ld, not %ld\n", name, version < 0 ? 0 : version, needed);
}

#define RUN_FROM(needed, test) run_from((needed), (test), #test)

static void run_tests_of_system(void)
{
	version = syscall(444, NULL, (size_t)0, 1);	/* landlock_create_ruleset, asked for its version */
	RUN_FROM(1, test_named_files_can_be_read);
	RUN_FROM(1, test_open_descriptors_go_on_working);
	RUN_FROM(1, test_no_other_file_can_be_opened);
	RUN_FROM(1, test_named_files_cannot_be_written);
	RUN_FROM(3, test_named_files_cannot_be_cut);
	RUN_FROM(1, test_nothing_can_be_created);
	RUN_FROM(1, test_nothing_can_be_renamed_or_removed);
	RUN_FROM(1, test_a_file_in_the_place_of_a_named_one_cannot_be_read);
	RUN_FROM(1, test_without_a_file_nothing_can_be_read);
	RUN_FROM(1, test_no_program_can_be_started);
	RUN_FROM(4, test_no_tcp);
	RUN_FROM(6, test_no_abstract_socket);
	RUN_FROM(1, test_no_other_process_can_be_looked_into);
	RUN_FROM(1, test_what_is_left);
	RUN_FROM(6, test_no_signal_to_others);
	RUN_FROM(6, test_no_signal_to_a_sibling);
	RUN_FROM(1, test_no_process_can_be_forked);
	RUN_FROM(1, test_who_prepares_is_not_confined);
	RUN_FROM(1, test_the_confinement_is_closed_once_it_is_on);
	RUN_FROM(1, test_a_bad_descriptor_is_an_error_and_leaves_nothing_open);
	RUN_FROM(1, test_what_is_no_confinement_is_an_error);
}

#else

static int everything_goes(void)
{
	int error = open_descriptors_work();

	if (error == 0)
		error = read_path(other_path);
	if (error == 0 && open(new_path, O_WRONLY | O_CREAT | O_EXCL, 0666) < 0)
		error = errno;
	if (error == 0 && kill(getppid(), SIGCONT) < 0)
		error = errno;
	return error;
}

static void test_nothing_is_prepared(void)
{
	make_files();
	const int fds[] = {allowed_fd, second_fd};
	CHECK(confine_prepare(fds, 2) == -1);
	CHECK(confine_prepare(NULL, 0) == -1);
	CHECK(confined(everything_goes) == 0);
	remove_files();
}

static void run_tests_of_system(void)
{
	RUN(test_nothing_is_prepared);
}

#endif

static int act_unconfined(void)
{
	if (confine_self(-1) != 0)
		return BROKEN;
	return read_path(other_path) != 0 ? BROKEN : open_descriptors_work();
}

static void test_without_a_confinement_nothing_happens(void)
{
	make_files();
	CHECK(unit_in_child(act_unconfined) == 0);
	CHECK(unit_in_child(read_allowed) == 0);
	remove_files();
}

static int run_all(void)
{
	run_tests_of_system();
	RUN(test_without_a_confinement_nothing_happens);
	if (rmdir(unit_scratch) < 0)	/* an act has left something there */
		return 1;
	return unit_result();
}

static int run_in_scratch(void)
{
	return unit_in_scratch(run_all);
}

/* As a peer does with --user. */
static int become_nobody_and_run(void)
{
	const struct passwd *user = getpwnam("nobody");

	if (user == NULL || setgroups(1, &user->pw_gid) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
		return BROKEN;
#ifdef PR_SET_DUMPABLE
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);	/* else no process may look into this one */
#endif
	printf("as %s:\n", user->pw_name);
	fflush(stdout);
	return run_in_scratch();
}

/* What root can do no more, another user can't either. The child comes first: each makes a
 * scratch directory of its own. */
int main(void)
{
	bool failed = geteuid() == 0 && unit_in_child(become_nobody_and_run) != 0;

	return run_in_scratch() != 0 || failed;
}
