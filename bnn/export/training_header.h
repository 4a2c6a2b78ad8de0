#ifndef ${NAME}_H
#define ${NAME}_H

#include <stdint.h>

#define ${NAME}_HEIGHT $height
#define ${NAME}_WIDTH $width
#define ${NAME}_CHANNELS $channels
#define ${NAME}_CLASSES $classes
#define ${NAME}_BATCH $batch

typedef $element ${name}_element;

extern const char *const ${name}_class_names[${NAME}_CLASSES];

/* The logits of one example: $what, in the order of height, width, channels.
   Its memory is static: one call at a time, of this function and the next. Compile it without contraction of products
   and sums: -std=c99 or -ffp-contract=off. */
void ${name}_run(const ${name}_element *example, float *logits);

/* A step by `count` examples, one after the other, and their labels, from 0: of 2 to ${NAME}_BATCH examples. `rate`
   multiplies all learning rates: 1 at first, and less towards the end of a training. Returns the mean loss before the
   step. It is not a number, and nothing is learned, where the count or a label is out of range, the rate is negative, or the
   rate, the loss or the variance of a norm is not finite. */
float ${name}_train(const ${name}_element *given, const int *labels, int count, double rate);

/* The class of the largest logit. */
int ${name}_best(const float *logits);

#endif
