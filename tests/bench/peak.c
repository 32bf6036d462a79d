// The machine's f32 peak: independent multiply-adds on every register of the widest vectors the
// processor has, one thread per core. See bench.h.
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

enum { CHAINS = 24, TRIPS = 100000 };

#define FMA_LOOP(name, floats, attribute)                                                          \
    attribute static float name(void)                                                              \
    {                                                                                              \
        typedef float vec __attribute__((vector_size(4 * (floats))));                              \
        vec acc[CHAINS], a = {0}, b = {0};                                                         \
        __asm__ volatile("" : "+x"(a), "+x"(b));                                                   \
        for (int i = 0; i < CHAINS; i++)                                                           \
            acc[i] = a;                                                                            \
        for (int t = 0; t < TRIPS; t++)                                                            \
            _Pragma("GCC unroll 24") for (int i = 0; i < CHAINS; i++)                              \
            {                                                                                      \
                acc[i] = acc[i] * a + b;                                                           \
                __asm__ volatile("" : "+x"(acc[i]));                                               \
            }                                                                                      \
        float sum = 0;                                                                             \
        for (int i = 0; i < CHAINS; i++)                                                           \
            sum += acc[i][0];                                                                      \
        return sum;                                                                                \
    }

#ifdef __x86_64__
FMA_LOOP(loop512, 16, __attribute__((target("avx512f,prefer-vector-width=512"))))
FMA_LOOP(loop256, 8, __attribute__((target("avx2,fma"))))
FMA_LOOP(loop128, 4, )
#else
FMA_LOOP(loop128, 4, __attribute__((optimize("O2"))))
#endif

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
