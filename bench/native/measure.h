/* What a load measures with: clocks, latencies, and the server's processor time. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>
#include <time.h>

#define SECOND 1000000000ull
enum { CELLS = 64 * 32 };

/* Counts of latencies: 32 cells for each power of two, so a cell is 3 % wide at most. */
struct histogram {
    uint64_t count, longest, cells[CELLS];
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now(clockid_t clock);
uint64_t after(double seconds);
void count(struct histogram *histogram, uint64_t time);
double percentile(const struct histogram *histogram, double share); /* in microseconds */

void add_process(int pid);     /* of the server */
uint64_t processor_time(void); /* of all threads of all of them */

#endif
