/* log.h - what the programs say to people, on standard error.
 *
 * One event is one line, and one line is one write, so that the lines of
 * several processes never mix. A line begins with the program's name, and in
 * a process that has a role with the role and its process number.
 *
 * Whoever reads them can't stop a process: a line that can't be written within a
 * second is lost, and those that follow are at once, until one can be written.
 * A line then tells how many were lost. */
#ifndef LOG_H
#define LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __GNUC__
#define LOG_FORMAT_AT(text, args) __attribute__((format(printf, text, args)))
#define LOG_NORETURN __attribute__((noreturn))
#else
#define LOG_FORMAT_AT(text, args)
#define LOG_NORETURN
#endif
#define LOG_FORMAT LOG_FORMAT_AT(1, 2)

enum log_level { LOG_QUIET, LOG_NORMAL, LOG_VERBOSE };

/* Names the program; to be called first of all. The text is kept, not copied.
 * Standard descriptors that are closed are opened to nothing: else the next
 * file to be opened, a data file perhaps, would get one, and the messages. */
void log_program(const char *name);

/* Names what this process does from here on; NULL for nothing in particular. */
void log_role(const char *role);

/* Sets what is said: errors alone, also information, also details. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Something went wrong. log_warn adds the text of errno; both keep errno. */
LOG_FORMAT void log_warn(const char *format, ...);
LOG_FORMAT void log_warnx(const char *format, ...);

/* For a trouble that may come back with each client: true at most every 10 s. The
 * caller keeps *said_ms for each kind of trouble, 0 at first. */
bool log_may_say(int64_t *said_ms);

/* Information, unless quiet; details, if verbose. */
LOG_FORMAT void log_info(const char *format, ...);
LOG_FORMAT void log_debug(const char *format, ...);

/* What was asked for, at any level. */
LOG_FORMAT void log_status(const char *format, ...);

/* Like log_warn and log_warnx, and then the process ends with status 1. */
LOG_NORETURN LOG_FORMAT void fatal(const char *format, ...);
LOG_NORETURN LOG_FORMAT void fatalx(const char *format, ...);

/* Replaces what a terminal could take for a command by '?', in place: control
 * characters, and what is not UTF-8. All messages are cleaned. */
void log_clean(char *text);

/* From here on no line is waited for, fatal's excepted: for a process that has
 * others to answer. Children inherit this. */
void log_never_wait(void);

/* Counts lost lines in *lost, 0 at first, in memory that this process shares with
 * those that it forks later: then it tells of those of processes that have ended. */
void log_share_lost(atomic_uint *lost);

/* Tells how many lines were lost, if any were and it can be told at once. Returns
 * whether there is something to tell still. */
bool log_tell_lost(void);

/* Whether standard error is a terminal that can erase a line, so that one can be
 * redrawn: not where TERM is "dumb" or is not set. */
bool log_on_terminal(void);

/* Draws on the terminal a line that is redrawn, from its first column on. What
 * can't be drawn at once is left out. The next message of this process removes the
 * line first. */
void log_draw(const char *text, size_t size);

/* Erases the line that log_draw has drawn, or another process beside this one may
 * have (log_beside_drawn), if any. A signal handler may call it. */
void log_erase(void);

/* For a process that shares the terminal with one that redraws a line: from here on
 * each message removes first what may stand there, where a line can be redrawn.
 * Children inherit this. */
void log_beside_drawn(void);

#endif
