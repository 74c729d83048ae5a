/* unit.h - the smallest frame for unit tests in C.
 *
 * A test is a function that CHECKs. RUN names it and prints one line for it,
 * "ok NAME" or "FAIL NAME", to standard output; each CHECK that failed has
 * said so before, on standard error. main returns unit_result(). */
#ifndef UNIT_H
#define UNIT_H

#include <stdbool.h>
#include <stdio.h>

static int unit_failed_checks;
static int unit_failed_tests;

static inline bool unit_check(bool ok, const char *what, const char *file, int line)
{
	if (!ok) {
		fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
		unit_failed_checks++;
	}
	return ok;
}

static inline void unit_run(void (*test)(void), const char *name)
{
	unit_failed_checks = 0;
	test();
	if (unit_failed_checks > 0)
		unit_failed_tests++;
	printf("%s %s\n", unit_failed_checks > 0 ? "FAIL" : "ok", name);
	fflush(stdout);
}

static inline int unit_result(void)
{
	return unit_failed_tests > 0;
}

#define CHECK(cond) unit_check((cond), #cond, __FILE__, __LINE__)
#define RUN(test) unit_run((test), #test)

#endif
