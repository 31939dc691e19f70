// A program that checks itself: threads blocked in system calls that must never be interrupted, and threads that spin with known
// values in every register. SIGTERM ends it; it prints OK, or what went wrong.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_int stop_now;
static atomic_long rounds[32];
static atomic_int names;
static atomic_int interrupted;

static void fail(const char *what, long value) {
    char line[200];
    int n = snprintf(line, sizeof line, "FAIL %s: %ld\n", what, value);
    (void)!write(1, line, n);
    _exit(1);
}

static long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int begin(const char *name) {
    prctl(PR_SET_NAME, name);
    return atomic_fetch_add(&names, 1);
}

static void *sleeper(void *arg) {
    int me = begin("nanosleep");
    while (!stop_now) {
        struct timespec t = {0, 3000000};
        long before = now_ns();
        long rc = syscall(SYS_nanosleep, &t, 0);
        if (rc) fail("nanosleep", errno);
        if (now_ns() - before < 3000000) fail("nanosleep too short", now_ns() - before);
        rounds[me]++;
    }
    return 0;
}

static void *poller(void *arg) {
    int me = begin("poll");
    int p[2];
    if (pipe(p)) fail("pipe", errno);
    while (!stop_now) {
        struct pollfd f = {p[0], POLLIN, 0};
        int rc = poll(&f, 1, 4);
        if (rc != 0) fail("poll", rc < 0 ? errno : rc);
        struct timespec t = {0, 4000000};
        rc = ppoll(&f, 1, &t, 0);
        if (rc != 0) fail("ppoll", rc < 0 ? errno : rc);
        rounds[me]++;
    }
    return 0;
}

static void *epoller(void *arg) {
    int me = begin("epoll_wait");
    int e = epoll_create1(0);
    struct epoll_event ev;
    while (!stop_now) {
        int rc = epoll_wait(e, &ev, 1, 4);
        if (rc < 0 && errno == EINTR) rc = 0, interrupted++; // never restarted by the kernel: counted, and judged by the test
        if (rc != 0) fail("epoll_wait", rc < 0 ? errno : rc);
        rounds[me]++;
    }
    return 0;
}

static int word;
static void *futex_waiter(void *arg) {
    int me = begin("futex");
    while (!stop_now) {
        struct timespec t = {0, 4000000};
        long rc = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &t, 0, 0);
        if (rc != -1 || errno != ETIMEDOUT) fail("futex", rc ? errno : 0);
        rounds[me]++;
    }
    return 0;
}

static int ping[2], pong[2];
static void *reader(void *arg) {
    int me = begin("read");
    char c;
    for (;;) {
        long n = read(ping[0], &c, 1);
        if (n == 0) return 0;
        if (n != 1) fail("read", errno);
        if (write(pong[1], &c, 1) != 1) fail("write", errno);
        rounds[me]++;
    }
}

static void *writer(void *arg) {
    int me = begin("write");
    char c = 0, d;
    while (!stop_now) {
        c++;
        if (write(ping[1], &c, 1) != 1) fail("write", errno);
        struct timespec t = {0, 500000};
        if (syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, 0)) fail("clock_nanosleep", errno);
        if (read(pong[0], &d, 1) != 1) fail("read", errno);
        if (c != d) fail("pipe", d);
        rounds[me]++;
    }
    close(ping[1]);
    return 0;
}

extern long check_registers(long spins, const void *vectors, void *scratch);
extern long check_vectors(long spins, const void *vectors, void *scratch);

static char vectors[2048] __attribute__((aligned(64)));
static void *spinner(void *arg) {
    int me = begin("spin");
    static _Thread_local char scratch[2048] __attribute__((aligned(64)));
    static _Thread_local char stack[16384];
    stack_t alt = {stack, 0, sizeof stack}, seen;
    sigaltstack(&alt, 0);
    while (!stop_now) {
        long bad = check_registers(20000, vectors, scratch);
        if (bad) fail("register", bad);
        if (__builtin_cpu_supports("avx512f")) {
            bad = check_vectors(20000, vectors, scratch);
            if (bad || memcmp(scratch, vectors, 2048)) fail("vector register", bad);
        }
        sigaltstack(0, &seen);
        if (seen.ss_sp != alt.ss_sp || seen.ss_size != alt.ss_size) fail("altstack", 0);
        rounds[me]++;
    }
    return 0;
}

__asm__(
    ".globl check_registers\n"
    "check_registers:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rdi, %rax\n"
    "movq $0x51, -8(%rsp); movq $0x52, -64(%rsp); movq $0x53, -128(%rsp)\n"
    "mov $0x101, %rbx; mov $0x102, %rcx; mov $0x103, %rdx; mov $0x104, %rsi; mov $0x105, %rdi; mov $0x106, %rbp\n"
    "mov $0x108, %r8; mov $0x109, %r9; mov $0x10a, %r10; mov $0x10b, %r11; mov $0x10c, %r12; mov $0x10d, %r13\n"
    "mov $0x10e, %r14; mov $0x10f, %r15\n"
    "stc\n"
    "1: .rept 8; jnc 9f; .endr\n"
    "dec %rax; jnz 1b\n" // dec leaves the carry flag alone
    "jnc 9f\n"
    ".macro want reg, value\n mov $\\value, %eax\n cmp %rax, %\\reg\n jne 8f\n .endm\n"
    "want rbx, 0x101; want rcx, 0x102; want rdx, 0x103; want rsi, 0x104; want rdi, 0x105; want rbp, 0x106\n"
    "want r8, 0x108; want r9, 0x109; want r10, 0x10a; want r11, 0x10b; want r12, 0x10c; want r13, 0x10d\n"
    "want r14, 0x10e; want r15, 0x10f\n"
    "mov $0x51, %eax; cmpq $0x51, -8(%rsp); jne 8f\n"
    "mov $0x52, %eax; cmpq $0x52, -64(%rsp); jne 8f\n"
    "mov $0x53, %eax; cmpq $0x53, -128(%rsp); jne 8f\n"
    "xor %eax, %eax; jmp 8f\n"
    "9: mov $0x777, %eax\n"
    "8: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
    ".globl check_vectors\n"
    "check_vectors:\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "vmovdqa64 \\n*64(%rsi), %zmm\\n\n .endr\n"
    "mov $0x5a5a, %eax; kmovw %eax, %k3\n"
    "2: dec %rdi; jnz 2b\n"
    ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
    "vmovdqa64 %zmm\\n, \\n*64(%rdx)\n .endr\n"
    "kmovw %k3, %eax; xor $0x5a5a, %eax; vzeroupper; ret\n");

int main(int argc, char **argv) {
    int extra = argc > 1 ? atoi(argv[1]) : 0;
    for (int i = 0; i < 2048; i++) vectors[i] = (char)(i * 7 + i / 64);
    if (pipe(ping) || pipe(pong)) fail("pipe", errno);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, 0);
    void *(*kinds[])(void *) = {sleeper, poller, epoller, futex_waiter, reader, writer, spinner};
    pthread_t threads[32];
    int count = 0;
    for (; count < 7; count++) pthread_create(&threads[count], 0, kinds[count], 0);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    static sem_t never;
    for (int i = 0; i < extra; i++) {
        pthread_t t;
        if (pthread_create(&t, &small, (void *(*)(void *))sem_wait, &never)) fail("pthread_create", errno);
    }
    while (names < 7) usleep(1000);
    (void)!write(1, "READY\n", 6);
    siginfo_t info;
    long rc;
    while ((rc = syscall(SYS_rt_sigtimedwait, &set, &info, 0, 8)) < 0 && errno == EINTR) interrupted++;
    if (rc != SIGTERM) fail("sigtimedwait", rc < 0 ? errno : rc);
    long before[32];
    for (int i = 0; i < count; i++) before[i] = rounds[i];
    struct timespec t = {0, 100000000};
    nanosleep(&t, 0);
    for (int i = 0; i < count; i++)
        if (rounds[i] == before[i]) fail("no progress", i);
    stop_now = 1;
    for (int i = 0; i < count; i++) pthread_join(threads[i], 0);
    char line[200];
    int n = snprintf(line, sizeof line, "OK interrupted %d\n", interrupted);
    (void)!write(1, line, n);
    return 0;
}
