// The two clocks: one that only counts, one that knows the date. Thread: any.
#ifndef IMAGEND_CLOCK_H
#define IMAGEND_CLOCK_H

#include <stdint.h>

// Seconds since some fixed moment, never going back.
double clock_seconds(void);

// Milliseconds since 1970-01-01 UTC.
int64_t clock_unix_ms(void);

#endif
