// A fuzz target is one file with the two functions below. Built with -Dfuzz=true (clang) it is a
// libFuzzer program; otherwise replay.c runs it over its corpus as a test.
#ifndef IMAGEND_FUZZ_H
#define IMAGEND_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// An error value that nobody may return, a broken promise of an interface: stop here.
#define FUZZ_REQUIRE(cond)                                                                         \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

#endif
