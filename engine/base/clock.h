// Time for measuring. Thread: any.
#ifndef IMAGEND_CLOCK_H
#define IMAGEND_CLOCK_H

// Seconds since some fixed moment, never going back.
double clock_seconds(void);

#endif
