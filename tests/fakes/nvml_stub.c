/* A stand-in for libnvidia-ml.so.1, driven by a script, for tests on machines without a GPU.
 *
 * NVML_STUB_SCRIPT names a text file that is read again whenever it changes. One statement a line:
 *
 *   count N                  how many GPUs (default 1)
 *   origin S                 Unix time at which every counter stood at 0 (default 0)
 *   now S                    stop the clock at this Unix time (default: the real clock)
 *   quantum S                the counter moves only at multiples of S seconds (default 0.1)
 *   limit GPU W              maximum power limit (default 700)
 *   mig GPU N                MIG mode is on; the next free MIG device of the GPU has N of 7 slices
 *   at S GPU watts W         from S on the GPU draws W watts
 *   at S GPU reset           the counter starts again from 0
 *   at S GPU jump J          the counter leaps by J joules
 *   at S GPU freeze          the counter stands still from here on, power goes on
 *   at S GPU lost | found    every call says GPU_IS_LOST | works again
 *   at S GPU pids P[:U],...  processes on it and their SM utilisation in percent; `pids -` for none
 *   nocounter GPU            no energy counter (NOT_SUPPORTED)
 *   nofields GPU             no field values, only nvmlDeviceGetPowerUsage
 *   nopids GPU               no process lists
 *
 * GPU is an index or `*` (for `pids` also `0.1`, the second MIG device of GPU 0); statements with `at` stand in order of time. The counter is a function of time alone, so
 * every process sees the same. NVML_STUB_LOG names a file to which every counter reading is appended: `GPU mJ`.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_GPUS = 16, MAX_EVENTS = 4096, MAX_PIDS = 32, MAX_MIGS = 7 };
enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, LOST = 15 };
enum kind { WATTS, RESET, JUMP, FREEZE, GONE, FOUND, PIDS };

typedef int status;
typedef struct gpu *handle;
struct event { double at; int gpu, slice; enum kind kind; double value; int pids; unsigned pid[MAX_PIDS], use[MAX_PIDS]; };
struct gpu { int index, slice, nocounter, nofields, nopids, mig, size; double limit; };

static struct gpu gpus[MAX_GPUS], migs[MAX_GPUS][MAX_MIGS];
static struct event events[MAX_EVENTS];
static int count = 1, n_events;
static double origin, fixed_now = -1, quantum = 0.1;
static struct timespec seen;
static ino_t seen_inode;

static double now(void) {
    struct timespec t;
    if (fixed_now >= 0) return fixed_now;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void parse_pids(struct event *e, char *text) {
    for (char *part = strtok(text, ","); part && e->pids < MAX_PIDS; part = strtok(NULL, ",")) {
        if (*part == '-') return;
        char *colon = strchr(part, ':');
        e->pid[e->pids] = (unsigned)atoi(part);
        e->use[e->pids++] = colon ? (unsigned)atoi(colon + 1) : 0;
    }
}

static void parse_event(const char *line) {
    char gpu[16], what[16], rest[1024] = "";
    struct event *e = &events[n_events];
    memset(e, 0, sizeof *e);
    if (n_events >= MAX_EVENTS || sscanf(line, "at %lf %15s %15s %1023s", &e->at, gpu, what, rest) < 3) return;
    static const char *names[] = {"watts", "reset", "jump", "freeze", "lost", "found", "pids"};
    for (int k = WATTS; k <= PIDS; k++)
        if (!strcmp(what, names[k])) { e->kind = (enum kind)k; n_events++; break; }
    e->gpu = gpu[0] == '*' ? -1 : atoi(gpu);
    e->slice = strchr(gpu, '.') ? atoi(strchr(gpu, '.') + 1) : -1;
    e->value = atof(rest);
    if (e->kind == PIDS) parse_pids(e, rest);
}

static void parse_flag(const char *line) {
    char word[16], gpu[16] = "*";
    double value = 0;
    if (sscanf(line, "%15s %15s %lf", word, gpu, &value) < 1) return;
    if (!strcmp(word, "count")) count = atoi(gpu) < MAX_GPUS ? atoi(gpu) : MAX_GPUS;
    else if (!strcmp(word, "origin")) origin = atof(gpu);
    else if (!strcmp(word, "now")) fixed_now = atof(gpu);
    else if (!strcmp(word, "quantum")) quantum = atof(gpu);
    else for (int i = 0; i < MAX_GPUS; i++) {
        if (gpu[0] != '*' && atoi(gpu) != i) continue;
        if (!strcmp(word, "nocounter")) gpus[i].nocounter = 1;
        if (!strcmp(word, "nofields")) gpus[i].nofields = 1;
        if (!strcmp(word, "nopids")) gpus[i].nopids = 1;
        if (!strcmp(word, "mig") && gpus[i].mig < MAX_MIGS) migs[i][gpus[i].mig++].size = (int)value;
        if (!strcmp(word, "limit")) gpus[i].limit = value;
    }
}

static void load(void) {
    const char *path = getenv("NVML_STUB_SCRIPT");
    struct stat s;
    if (!path || stat(path, &s)) return;
    if (s.st_ino == seen_inode && s.st_mtim.tv_sec == seen.tv_sec && s.st_mtim.tv_nsec == seen.tv_nsec) return;
    FILE *f = fopen(path, "r");
    if (!f) return;
    char line[1200];
    seen = s.st_mtim, seen_inode = s.st_ino;
    count = 1, n_events = 0, origin = 0, fixed_now = -1, quantum = 0.1;
    for (int i = 0; i < MAX_GPUS; i++) {
        gpus[i] = (struct gpu){.index = i, .slice = -1, .limit = 700};
        for (int k = 0; k < MAX_MIGS; k++) migs[i][k] = (struct gpu){.index = i, .slice = k};
    }
    while (fgets(line, sizeof line, f)) strncmp(line, "at ", 3) ? parse_flag(line) : parse_event(line);
    fclose(f);
}

static int concerns(const struct event *e, const struct gpu *g) {
    return (e->gpu < 0 || e->gpu == g->index) && e->slice == (e->kind == PIDS ? g->slice : -1);
}

static double watts(const struct gpu *g, double t) {
    double w = 0;
    for (int i = 0; i < n_events && events[i].at <= t; i++)
        if (events[i].kind == WATTS && concerns(&events[i], g)) w = events[i].value;
    return w;
}

static int lost(const struct gpu *g) {
    int gone = 0;
    double t = now();
    for (int i = 0; i < n_events && events[i].at <= t; i++)
        if ((events[i].kind == GONE || events[i].kind == FOUND) && concerns(&events[i], g)) gone = events[i].kind == GONE;
    return gone;
}

static double joules(const struct gpu *g) {
    double t = quantum > 0 ? floor(now() / quantum) * quantum : now(), from = origin, w = 0, sum = 0;
    for (int i = 0; i < n_events && events[i].at <= t; i++) {
        const struct event *e = &events[i];
        if (!concerns(e, g)) continue;
        if (e->at > from) { sum += w * (e->at - from); from = e->at; }
        if (e->kind == WATTS) w = e->value;
        if (e->kind == RESET) sum = 0;
        if (e->kind == JUMP) sum += e->value;
        if (e->kind == FREEZE) return sum;
    }
    return t > from ? sum + w * (t - from) : sum;
}

static const struct event *clients(const struct gpu *g) {
    const struct event *found = NULL;
    double t = now();
    for (int i = 0; i < n_events && events[i].at <= t; i++)
        if (events[i].kind == PIDS && concerns(&events[i], g)) found = &events[i];
    return found;
}

status nvmlInitWithFlags(unsigned flags) { (void)flags; load(); return OK; }
status nvmlInit_v2(void) { load(); return OK; }
status nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(status s) { (void)s; return "stub error"; }
status nvmlSystemGetDriverVersion(char *b, unsigned n) { snprintf(b, n, "550.0"); return OK; }
status nvmlDeviceGetCount_v2(unsigned *n) { load(); *n = (unsigned)count; return OK; }
status nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *h) {
    load();
    if (i >= (unsigned)count) return INVALID;
    *h = &gpus[i];
    return OK;
}
status nvmlDeviceGetIndex(handle g, unsigned *i) { *i = (unsigned)g->index; return OK; }
status nvmlDeviceGetName(handle g, char *b, unsigned n) { (void)g; snprintf(b, n, "NVIDIA H100 STUB"); return OK; }
status nvmlDeviceGetUUID(handle g, char *b, unsigned n) {
    if (g->slice < 0) snprintf(b, n, "GPU-00000000-0000-0000-0000-%012d", g->index);
    else snprintf(b, n, "MIG-00000000-0000-0000-%04d-%012d", g->slice, g->index);
    return OK;
}
status nvmlDeviceGetTotalEnergyConsumption(handle g, unsigned long long *mj) {
    load();
    if (lost(g)) return LOST;
    if (g->nocounter) return NOT_SUPPORTED;
    *mj = (unsigned long long)(joules(g) * 1000 + 0.5);
    const char *path = getenv("NVML_STUB_LOG");
    FILE *f = path ? fopen(path, "a") : NULL;
    if (f) { fprintf(f, "%d %llu\n", g->index, *mj); fclose(f); }
    return OK;
}
status nvmlDeviceGetPowerUsage(handle g, unsigned *mw) {
    load();
    if (lost(g)) return LOST;
    *mw = (unsigned)(watts(g, now()) * 1000);
    return OK;
}
status nvmlDeviceGetPowerManagementLimitConstraints(handle g, unsigned *low, unsigned *high) {
    *low = 0, *high = (unsigned)(g->limit * 1000);
    return OK;
}
struct field { unsigned id, scope; int64_t stamp, latency; unsigned type; status result; union { double d; unsigned u; unsigned long long l; } value; };
status nvmlDeviceGetFieldValues(handle g, int n, struct field *f) {
    load();
    if (lost(g)) return LOST;
    if (g->nofields) return NOT_SUPPORTED;
    for (int i = 0; i < n; i++) {
        f[i].type = 1;
        f[i].result = f[i].id == 185 || f[i].id == 186 ? OK : NOT_SUPPORTED;
        f[i].value.u = (unsigned)(watts(g, now()) * 1000);
    }
    return OK;
}
status nvmlDeviceGetArchitecture(handle g, unsigned *a) { (void)g; *a = 9; return OK; } /* Hopper: Zeus asks */
struct process { unsigned pid; unsigned long long memory; unsigned instance, compute; };
status nvmlDeviceGetComputeRunningProcesses_v3(handle g, unsigned *n, struct process *p) {
    load();
    if (lost(g)) return LOST;
    if (g->nopids) return NOT_SUPPORTED;
    const struct event *e = clients(g);
    unsigned there = e ? (unsigned)e->pids : 0;
    if (*n < there || (there && !p)) { *n = there; return SMALL; }
    for (unsigned i = 0; i < there; i++) p[i] = (struct process){e->pid[i], 1 << 30, 0, 0};
    *n = there;
    return OK;
}
status nvmlDeviceGetComputeRunningProcesses_v2(handle g, unsigned *n, struct process *p) {
    return nvmlDeviceGetComputeRunningProcesses_v3(g, n, p);
}
status nvmlDeviceGetGraphicsRunningProcesses_v3(handle g, unsigned *n, void *p) { (void)g; (void)p; *n = 0; return OK; }
status nvmlDeviceGetGraphicsRunningProcesses_v2(handle g, unsigned *n, void *p) { (void)g; (void)p; *n = 0; return OK; }
struct use { unsigned pid; unsigned long long stamp; unsigned sm, memory, encoder, decoder; };
status nvmlDeviceGetProcessUtilization(handle g, struct use *u, unsigned *n, unsigned long long since) {
    (void)since;
    load();
    const struct event *e = clients(g);
    unsigned there = 0;
    for (int i = 0; e && i < e->pids; i++) there += e->use[i] > 0;
    if (!there) return NOT_FOUND;
    if (!u || *n < there) { *n = there; return SMALL; }
    *n = 0;
    for (int i = 0; i < e->pids; i++)
        if (e->use[i]) u[(*n)++] = (struct use){e->pid[i], (unsigned long long)(now() * 1e6), e->use[i], 0, 0, 0};
    return OK;
}
status nvmlDeviceGetUtilizationRates(handle g, unsigned *rates) { (void)g; rates[0] = 50, rates[1] = 20; return OK; }
status nvmlDeviceGetMemoryInfo(handle g, unsigned long long *m) {
    (void)g;
    m[0] = 80ULL << 30, m[2] = 1ULL << 30, m[1] = m[0] - m[2];
    return OK;
}
status nvmlDeviceGetTemperature(handle g, int sensor, unsigned *t) { (void)g; (void)sensor; *t = 55; return OK; }
status nvmlDeviceGetMigMode(handle g, unsigned *current, unsigned *pending) {
    load();
    *current = *pending = g->mig > 0;
    return OK;
}
status nvmlDeviceGetMaxMigDeviceCount(handle g, unsigned *n) { (void)g; *n = MAX_MIGS; return OK; }
status nvmlDeviceGetMigDeviceHandleByIndex(handle g, unsigned i, handle *h) {
    if (i >= (unsigned)g->mig) return NOT_FOUND;
    *h = &migs[g->index][i];
    return OK;
}
/* multiprocessors, copy engines, decoders, encoders, JPEG, OFA, GPU slices, compute slices, then memory in MB */
struct attributes { unsigned counts[8]; unsigned long long memory; };
status nvmlDeviceGetAttributes_v2(handle g, struct attributes *a) {
    memset(a, 0, sizeof *a);
    a->counts[6] = a->counts[7] = (unsigned)g->size;
    return OK;
}
