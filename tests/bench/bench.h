// Shared by the benchmarks, which print tables and never fail on a slow machine.
#ifndef IMAGEND_BENCH_H
#define IMAGEND_BENCH_H

double bench_now(void); // wall clock, seconds
double bench_cpu(void); // processor time of all threads, seconds
// Operations per second of a loop of independent multiply-adds on that many threads at once.
double bench_peak(int threads);

#endif
