/* The least that a Cortex-M needs before main; files are the host's, by semihosting. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top;
extern int main(int argc, char **argv);
extern void initialise_monitor_handles(void);

/* What the C library calls when a program ends. */
void _fini(void) {}

void reset(void) {
    static char *arguments[] = {"classify", "logits", 0};
    initialise_monitor_handles();
    exit(main(2, arguments));
}

static void fault(void) { abort(); }

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {&stack_top, reset, fault, fault};
