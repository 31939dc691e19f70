// Under a seccomp filter that kills whoever makes one call, or in strict mode; SIGTERM ends it.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void on_term(int sig) {
    (void)!write(1, "OK interrupted 0\n", 17);
    _exit(sig != SIGTERM);
}

int main(int argc, char **argv) {
    signal(SIGTERM, on_term);
    if (argv[1][0] == 's') {
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
        (void)!write(1, "READY\n", 6);
        for (;;) ;
    }
    int number = argv[1][0] == 'm' ? SYS_mmap : SYS_getpid;
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {4, program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 9;
    (void)!write(1, "READY\n", 6);
    for (;;) pause();
}
