/* Reads examples from the standard input, learns from those with a label and prints the class of those without. An example
   is one byte, its label from 0 or 255 for none, and then $what, in the order of height, width, channels. An argument is
   the number of steps of the whole training: learning rates then fall to 0 by a cosine. */
#include "$name.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ELEMENTS (${NAME}_HEIGHT * ${NAME}_WIDTH * ${NAME}_CHANNELS)

static ${name}_element batch[${NAME}_BATCH * ELEMENTS], example[ELEMENTS];
static int labels[${NAME}_BATCH];
static int batch_count, step;

static void learn(int steps) {
    const double rate = steps > 0 ? 0.5 * (1 + cos(3.14159265358979323846 * (step < steps ? step : steps) / steps)) : 1;
    const float loss = ${name}_train(batch, labels, batch_count, rate);
    printf("step %d loss %.6g\n", ++step, (double)loss);
    batch_count = 0;
}

int main(int argc, char **argv) {
    const int steps = argc > 1 ? atoi(argv[1]) : 0;
    static float logits[${NAME}_CLASSES];
    int label, i;
    while ((label = getchar()) != EOF) {
        if (fread(example, sizeof *example, ELEMENTS, stdin) != ELEMENTS) {
            fprintf(stderr, "the input ends within an example\n");
            return 1;
        }
        if (label < ${NAME}_CLASSES) {
            for (i = 0; i < ELEMENTS; ++i) batch[batch_count * ELEMENTS + i] = example[i];
            labels[batch_count++] = label;
            if (batch_count == ${NAME}_BATCH) learn(steps);
        } else {
            ${name}_run(example, logits);
            printf("%s\n", ${name}_class_names[${name}_best(logits)]);
        }
    }
    if (batch_count > 1) learn(steps);
    return 0;
}
