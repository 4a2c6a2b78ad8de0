/* Reads examples from the standard input, one after the other, and prints the class of each; with an argument, its
   logits, too. An example is $what, in the order of height, width, channels. */
#include "$name.h"

#include <stdio.h>

int main(int argc, char **argv) {
    static ${name}_element example[${NAME}_HEIGHT * ${NAME}_WIDTH * ${NAME}_CHANNELS];
    static float logits[${NAME}_CLASSES];
    size_t count;
    int i;
    (void)argv;
    while ((count = fread(example, 1, sizeof example, stdin)) == sizeof example) {
        ${name}_run(example, logits);
        printf("%s", ${name}_class_names[${name}_best(logits)]);
        for (i = 0; argc > 1 && i < ${NAME}_CLASSES; ++i) printf(" %.9g", (double)logits[i]);
        printf("\n");
    }
    if (count) fprintf(stderr, "the input ends within an example, after %u of its bytes\n", (unsigned)count);
    return count != 0;
}
