/* Measurements of a load: clocks, latencies, and the server's processor time. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>
#include <time.h>

#define SECOND 1000000000ull
enum { CELLS = 64 * 32 };

/* A histogram of latencies: 32 cells for each power of two, so a cell is at most 3 % wide. */
struct histogram {
    uint64_t count, longest, cells[CELLS];
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now(clockid_t clock);
uint64_t after(double seconds);
void count(struct histogram *histogram, uint64_t time);
double percentile(const struct histogram *histogram, double share); /* in microseconds */

void add_process(int pid);     /* a process of the server */
uint64_t processor_time(void); /* total of all threads of these processes, in nanoseconds */

#endif
