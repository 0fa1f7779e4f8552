#define _GNU_SOURCE
#include "measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIDS = 16 };

static int pid[PIDS], pids;

void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time))
        fail("a process of the server is gone");
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

uint64_t after(double seconds)
{
    return now(CLOCK_MONOTONIC) + (uint64_t)(seconds * SECOND);
}

void count(struct histogram *histogram, uint64_t time)
{
    int shift = time < 32 ? 0 : 58 - __builtin_clzll(time);
    histogram->cells[(uint64_t)shift * 32 + (time >> shift)]++;
    histogram->count++;
    if (time > histogram->longest)
        histogram->longest = time;
}

/* Return the middle of the percentile's cell. */
double percentile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)histogram->count), below = 0;
    for (int cell = 0; cell < CELLS; cell++)
        if ((below += histogram->cells[cell]) > wanted) {
            int shift = cell < 64 ? 0 : cell / 32 - 1;
            return ((double)(cell - shift * 32) + 0.5) * (double)(1ull << shift) / 1000;
        }
    return 0;
}

void add_process(int number)
{
    if (pids == PIDS)
        fail("too many processes");
    pid[pids++] = number;
}

/* The same value as in /proc/PID/stat, but in nanoseconds. */
uint64_t processor_time(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < pids; i++) {
        clockid_t clock;
        if (clock_getcpuclockid(pid[i], &clock))
            fail("there is no process %d", pid[i]);
        sum += now(clock);
    }
    return sum;
}
