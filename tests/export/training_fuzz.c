/* Learns from random bytes: examples, labels, counts and rates that may be wrong. Prints how many of its steps have a loss. */
#include "network.c"

#include <stdio.h>

#define ELEMENTS (NETWORK_HEIGHT * NETWORK_WIDTH * NETWORK_CHANNELS)

static uint32_t state;

static uint32_t next(void) { return mix(state += 0x9E3779B9u); }

int main(void) {
    static network_element batch[(NETWORK_BATCH + 1) * ELEMENTS];
    static float logits[NETWORK_CLASSES];
    static const double rates[] = {1, 0.5, 0, 100, -1, -1e300, HUGE_VAL, NAN};
    int labels[NETWORK_BATCH + 1], steps = 0, losses = 0, examples_given = 0, i;
    while (examples_given < 10000) {
        const int count = next() % 8 ? NETWORK_BATCH : (int)(next() % (NETWORK_BATCH + 2));
        const double rate = rates[next() % 4 ? 0 : next() % 8];
        const int is_wild = next() % 4 == 0;
        unsigned char *bytes = (unsigned char *)batch;
        float loss;
        for (i = 0; i < (int)sizeof batch; ++i) bytes[i] = (unsigned char)(next() >> 24);
        if (sizeof *batch == 4 && !is_wild) {
            for (i = 0; i < (NETWORK_BATCH + 1) * ELEMENTS; ++i) batch[i] = (network_element)(next() % 512) / 128 - 2;
        }
        for (i = 0; i <= NETWORK_BATCH; ++i) labels[i] = (int)(next() % NETWORK_CLASSES);
        if (next() % 16 == 0) labels[next() % NETWORK_BATCH] = (int)next();
        loss = network_train(batch, labels, count, rate);
        losses += loss - loss == 0;
        network_run(batch, logits);
        if (network_best(logits) >= NETWORK_CLASSES) return 1;
        examples_given += count;
        ++steps;
    }
    printf("%d %d\n", losses, steps);
    return 0;
}
