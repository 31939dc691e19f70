// A vfork parent: it waits, without being interruptible, for a child that never executes anything.
#include <unistd.h>
#include <sys/prctl.h>
#include <signal.h>

int main(void) {
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        write(1, "READY\n", 6);
        for (;;) pause();
    }
    return 0;
}
