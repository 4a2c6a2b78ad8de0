/* A plugin of qemu (7.0 and later, user mode and systems): prints the instructions of the guest to the standard error,
   whenever it asks for its parent's process (getppid of aarch64), and when it ends. Its interface is declared here, as that of
   qemu-plugin.h, version 1. Build: gcc -shared -fPIC -O2 -o count.so count.c. Use: qemu-aarch64 -plugin ./count.so PROGRAM */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin;
struct qemu_plugin_tb;

enum { ADD_TO_COUNTER = 0, GETPPID = 173 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin, void (*)(plugin, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_atexit_cb(plugin, void (*)(plugin, void *), void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin, void (*)(plugin, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;

static uint64_t executed, told;

static void tell(const char *when) {
    fprintf(stderr, "%s: %" PRIu64 " instructions\n", when, executed - told);
    told = executed;
}

static void translated(plugin id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_TO_COUNTER, &executed, qemu_plugin_tb_n_insns(block));
}

static void called(plugin id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h) {
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == GETPPID) tell("mark");
}

static void ended(plugin id, void *nothing) {
    (void)id, (void)nothing;
    tell("end");
}

EXPORT int qemu_plugin_install(plugin id, const void *info, int count, char **arguments) {
    (void)info, (void)count, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, 0);
    return 0;
}
