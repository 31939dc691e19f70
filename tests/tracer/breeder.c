// Makes threads and children as fast as it can, until SIGTERM.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#include <errno.h>
#include <stdlib.h>

static atomic_int stop_now;

static void *brief(void *arg) { return arg; }

static void *make_threads(void *arg) {
    pthread_t t;
    while (!stop_now) {
        if (pthread_create(&t, 0, brief, &t)) _exit(2);
        void *seen;
        pthread_join(t, &seen);
        if (seen != &t) _exit(3);
    }
    return 0;
}

static void *make_children(void *arg) {
    while (!stop_now) {
        pid_t child = arg ? vfork() : fork();
        if (child == 0) _exit(7);
        int status;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7) _exit(4);
    }
    return 0;
}

int main(int argc, char **argv) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, 0);
    pthread_t a, b, c;
    pthread_create(&a, 0, make_threads, 0);
    pthread_create(&b, 0, make_children, 0);
    pthread_create(&c, 0, make_children, argv[1][0] == 'w' ? &stop_now : 0);
    write(1, "READY\n", 6);
    int sig;
    sigwait(&set, &sig);
    stop_now = 1;
    pthread_join(a, 0);
    pthread_join(b, 0);
    pthread_join(c, 0);
    write(1, "OK interrupted 0\n", 17);
    return 0;
}
