/* process.h - signals that end a program, and forking processes that end when their
 * parent ends. */
#ifndef PROCESS_H
#define PROCESS_H

#include <sys/types.h>

/* Installs the handler for the signals that end a program: SIGINT, SIGTERM, and SIGHUP
 * unless that is ignored, as nohup(1) does. */
void process_on_end(void (*handler)(int));

/* Forks, like fork(2). The child
 * - shows the role in its messages (kept, not copied; NULL for none);
 * - has all signals unblocked. It ignores those that end a program (SIGINT, SIGTERM,
 *   SIGHUP) and SIGUSR1, which asks for a report: these are for the parent. SIGCHLD has
 *   its default action; all others stay as they are;
 * - ends when its parent ends, for any reason: at once on Linux; elsewhere within
 *   about a second, and there it must not use ITIMER_REAL or alarm(2). */
pid_t process_fork(const char *role);

/* The same, with two pipes between the processes: each reads from *from what the other
 * writes to *to. After -1 with errno nothing is open. */
pid_t process_fork_piped(const char *role, int *from, int *to);

/* Like process_fork, but cheaper, for a parent that keeps its signals blocked. The child keeps
 * them blocked too, so that only SIGKILL ends it. It has no role. */
pid_t process_fork_blocked(void);

/* Waits until the child has ended. Returns NULL if it exited with status 0; else how
 * it ended, in words, in static memory. */
const char *process_wait(pid_t child);

/* How a process ended, in words, by its status from waitpid(2); NULL if it exited
 * with status 0. The words are in static memory. */
const char *process_end_text(int status);

#endif
