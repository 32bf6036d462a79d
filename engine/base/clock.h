// The two clocks: monotonic time and wall-clock time. Thread: any.
#ifndef IMAGEND_CLOCK_H
#define IMAGEND_CLOCK_H

#include <stdint.h>

// Seconds since an arbitrary fixed moment; never decreases.
double clock_seconds(void);

// Milliseconds since 1970-01-01 UTC.
int64_t clock_unix_ms(void);

#endif
