// Macros for test programs: CHECK counts and prints, test_end gives the exit status. A test that
// cannot run here returns test_skip(why), which meson reports as skipped. With
// TEST_STOPS_AT_FAILURE set, the first failure ends the program. TEST_ONLY=FUNCTION or FUNCTION:ROW
// leaves out the other calls that are made with RUN, and the rows for which test_row is false.
#ifndef IMAGEND_TEST_H
#define IMAGEND_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// One pair of counters for all files of a program: a failure counts wherever it was found.
__attribute__((weak)) int test_checks, test_failures;

#define CHECK(cond) CHECK_MSG(cond, "%s", "")
#define CHECK_MSG(cond, ...)                                                                       \
    do {                                                                                           \
        test_checks++;                                                                             \
        if (!(cond)) {                                                                             \
            test_failures++;                                                                       \
            fprintf(stderr, "%s:%d: CHECK(%s) failed ", __FILE__, __LINE__, #cond);                \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            if (getenv("TEST_STOPS_AT_FAILURE"))                                                   \
                exit(1);                                                                           \
        }                                                                                          \
    } while (0)
#define CHECK_INT(a, b)                                                                            \
    do {                                                                                           \
        long long a_ = (long long)(a), b_ = (long long)(b);                                        \
        CHECK_MSG(a_ == b_, "%s = %lld, expected %lld", #a, a_, b_);                               \
    } while (0)
#define CHECK_STR(a, b)                                                                            \
    do {                                                                                           \
        const char *sa_ = (a), *sb_ = (b);                                                         \
        CHECK_MSG(sa_ &&sb_ && !strcmp(sa_, sb_), "%s = \"%s\", expected \"%s\"", #a,              \
                  sa_ ? sa_ : "(null)", sb_ ? sb_ : "(null)");                                     \
    } while (0)
#define CHECK_NEAR(a, b, tol)                                                                      \
    do {                                                                                           \
        double a_ = (a), b_ = (b);                                                                 \
        CHECK_MSG(fabs(a_ - b_) <= (tol), "%s = %.9g, expected %.9g within %.3g", #a, a_, b_,      \
                  (double)(tol));                                                                  \
    } while (0)

static inline bool test_function(const char *call)
{
    const char *only = getenv("TEST_ONLY");
    const size_t n = strcspn(call, "(");

    return !only || (strcspn(only, ":") == n && !strncmp(only, call, n));
}
#define RUN(...)                                                                                   \
    do {                                                                                           \
        if (test_function(#__VA_ARGS__))                                                           \
            __VA_ARGS__;                                                                           \
    } while (0)

static inline bool test_row(const char *name)
{
    const char *only = getenv("TEST_ONLY"), *row = only ? strchr(only, ':') : NULL;

    return !row || !strcmp(row + 1, name);
}

// Processor time of the program, in seconds: for limits that a busy machine does not change.
static inline double test_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

// Seconds to wait for what must happen at some time, on a machine that may be slow and busy.
static inline double test_patience(void)
{
    const char *seconds = getenv("TEST_PATIENCE");

    return seconds ? atof(seconds) : 30;
}

static inline int test_skip(const char *why)
{
    printf("skipped: %s\n", why);
    return 77;
}

static inline int test_end(void)
{
    printf("%d checks, %d failed\n", test_checks, test_failures);
    return test_failures || !test_checks ? 1 : 0;
}

#endif
