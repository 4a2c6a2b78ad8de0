/* Learns from batches on the standard input: the number of examples and all labels, as int32, and then the examples. Prints the losses, and writes accumulators and norms of each block, and the logits of the
   first example. */
#include "network.c"

#include <stdio.h>

#define ELEMENTS (NETWORK_HEIGHT * NETWORK_WIDTH * NETWORK_CHANNELS)

static network_element batch[NETWORK_BATCH * ELEMENTS];

int main(void) {
    static network_element first_example[ELEMENTS];
    static float logits[NETWORK_CLASSES];
    static int labels[1000];
    int examples_given, first, i;
    if (fread(&examples_given, sizeof examples_given, 1, stdin) != 1 || examples_given > 1000) return 1;
    if (fread(labels, sizeof *labels, (size_t)examples_given, stdin) != (size_t)examples_given) return 1;
    for (first = 0; first < examples_given; first += NETWORK_BATCH) {
        const int left = examples_given - first, count = left < NETWORK_BATCH ? left : NETWORK_BATCH;
        if (fread(batch, sizeof *batch * ELEMENTS, (size_t)count, stdin) != (size_t)count) return 1;
        if (!first) memcpy(first_example, batch, sizeof first_example);
        fprintf(stderr, "%.9g\n", (double)network_train(batch, labels + first, count, 1));
    }
    for (i = 0; i < (int)(sizeof blocks / sizeof *blocks); ++i) {
        const struct block *block = blocks[i];
        const size_t weights = (size_t)(block->outputs * block_taps(block) * block->channels);
        fwrite(block->codes, 1, weights, stdout);
        fwrite(block->norms, sizeof *block->norms, (size_t)block->outputs, stdout);
    }
    network_run(first_example, logits);
    fwrite(logits, sizeof *logits, NETWORK_CLASSES, stdout);
    return 0;
}
