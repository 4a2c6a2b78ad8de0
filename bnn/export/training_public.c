
const char *const ${name}_class_names[${NAME}_CLASSES] = {
$class_names
};

static void forward(int count, int is_training) {
$forward
}

static int backward(int count, double rate) {
$backward
    return 1;
}

void ${name}_run(const ${name}_element *example, float *logits) {
    int i;
    examples = example;
    forward(1, 0);
    for (i = 0; i < CLASSES; ++i) logits[i] = head[i];
}

float ${name}_train(const ${name}_element *given, const int *labels, int count, double rate) {
    float loss;
    int n;
    if (count < 2 || count > ${NAME}_BATCH || !(rate >= 0 && rate - rate == 0)) return NAN;
    for (n = 0; n < count; ++n) {
        if (labels[n] < 0 || labels[n] >= CLASSES) return NAN;
    }
    examples = given;
    forward(count, 1);
    loss = find_loss(labels, count);
    if (!(loss - loss == 0)) return NAN;
    for (n = 0; n < (int)(sizeof blocks / sizeof *blocks); ++n) {
        if (!has_finite_statistics(blocks[n])) return NAN;
    }
    if (!step_number) {
        seed_twister((uint32_t)seed);
        mean_decay_power = square_decay_power = 1;
    }
    ++step_number;
    mean_decay_power *= ADAM_BETA1;
    square_decay_power *= ADAM_BETA2;
    for (n = 0; n < (int)(sizeof blocks / sizeof *blocks); ++n) take_in_statistics(blocks[n], count);
    return backward(count, rate) ? loss : NAN;
}

int ${name}_best(const float *logits) {
    int i, best = 0;
    for (i = 1; i < ${NAME}_CLASSES; ++i) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}
