// The machine's peak f32 rate: independent multiply-adds on all of the processor's widest vector
// registers, one thread per core. See bench.h.
#include "bench.h"

#include <pthread.h>
#include <stddef.h>
#include <time.h>

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double bench_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Chains: enough to hide the latency of eight operations in flight, few enough for 16 registers.
enum { TRIPS = 200000, CHAINS = 12 };
#define EACH_CHAIN(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#if defined(__x86_64__)
#define KEEP(v) __asm__ volatile("" : "+x"(v)) // in a register, and not known to the compiler
#elif defined(__aarch64__)
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#else
#define KEEP(v) __asm__ volatile("" : "+m"(v))
#endif
#define CHAIN_START(i) vec c##i = a;
#define CHAIN_STEP(i)                                                                              \
    c##i = c##i * a + b;                                                                           \
    KEEP(c##i);
#define CHAIN_SUM(i) sum += c##i[0];

#define FMA_LOOP(name, floats, attribute)                                                          \
    attribute static float name(void)                                                              \
    {                                                                                              \
        typedef float vec __attribute__((vector_size(4 * (floats))));                              \
        vec a = {0}, b = {0};                                                                      \
        float sum = 0;                                                                             \
        KEEP(a);                                                                                   \
        KEEP(b);                                                                                   \
        EACH_CHAIN(CHAIN_START)                                                                    \
        for (int t = 0; t < TRIPS; t++) {                                                          \
            EACH_CHAIN(CHAIN_STEP)                                                                 \
        }                                                                                          \
        EACH_CHAIN(CHAIN_SUM)                                                                      \
        return sum;                                                                                \
    }

#ifdef __x86_64__
FMA_LOOP(loop512, 16, __attribute__((target("avx512f,prefer-vector-width=512"))))
FMA_LOOP(loop256, 8, __attribute__((target("avx2,fma"))))
#endif
FMA_LOOP(loop128, 4, )

static float sink;

static void *one_thread(void *arg)
{
    double *flops = arg;
    float sum;
    int floats = 4;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        floats = 16;
        sum = loop512();
    } else if (__builtin_cpu_supports("avx2")) {
        floats = 8;
        sum = loop256();
    } else
#endif
        sum = loop128();
    __atomic_store(&sink, &sum, __ATOMIC_RELAXED);
    *flops = 2.0 * floats * CHAINS * TRIPS;
    return NULL;
}

double bench_peak(int threads)
{
    enum { MOST = 256 };
    pthread_t thread[MOST];
    double flops[MOST] = {0}, total = 0;
    double start = bench_now();
    int n = 0;
    while (n < threads - 1 && n < MOST - 1 &&
           !pthread_create(&thread[n], NULL, one_thread, &flops[n]))
        n++;
    one_thread(&flops[n]);
    for (int i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    double seconds = bench_now() - start;
    for (int i = 0; i <= n; i++)
        total += flops[i];
    return total / seconds;
}
