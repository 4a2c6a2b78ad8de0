/* The backward pass and the update of a step of the preset edge-min: see training_forward.c. */

/*** gradient_at */
/* The gradient of a norm's result. */
static float gradient_at(const struct block *block, const uint16_t *incoming, ptrdiff_t place, int output) {
    const int words = (block->outputs + 31) / 32;
    if (!block->bits) return head[place * block->outputs + output];
    if (block->outside[place * words + output / 32] >> output % 32 & 1u) return 0;
    return from_bfloat16(incoming[place * block->outputs + output]);
}

/*** adam */
static void adam(float *value, float *mean, float *square, float gradient, double rate) {
    const double mean_left = 1 - mean_decay_power, square_left = 1 - square_decay_power;
    float root, change;
    *mean += (float)(1 - ADAM_BETA1) * (gradient - *mean);
    *square *= (float)ADAM_BETA2;
    change = (float)(1 - ADAM_BETA2) * gradient;
    change *= gradient;
    *square += change;
    root = sqrtf(*square) / (float)sqrt(square_left);
    root += (float)ADAM_EPS;
    change = (float)(-NORM_RATE * rate / mean_left) * (*mean / root);
    *value += change;
}

/*** find_terms */
/* The factors of the gradient and of the product, and the constants, which make the gradient of a channel's products:
   terms. Returns a bound of the gradient; norms are stepped where it is finite. */
static float find_terms(const struct block *block, const uint16_t *incoming, int count, double rate) {
    const double values = (double)count * block_pixels(block);
    const float of_constant = (float)(1 / sqrt(block->eps));
    float bound = 0;
    int n, p, o;
    for (o = 0; o < 2 * block->outputs; ++o) totals[o] = terms[o] = 0;
    for (n = 0; n < count; ++n) {
        for (p = 0; p < block_pixels(block); ++p) {
            multiply(block, n, p);
            for (o = 0; o < block->outputs; ++o) {
                const float g = gradient_at(block, incoming, (ptrdiff_t)n * block_pixels(block) + p, o);
                const float centred = products[o] - block->norms[o].mean, along = g * centred;
                totals[o] += g;
                totals[block->outputs + o] += along;
                if (!(fabsf(g) <= terms[o])) terms[o] = fabsf(g);
                if (!(fabsf(centred) <= terms[block->outputs + o])) terms[block->outputs + o] = fabsf(centred);
            }
        }
    }
    for (o = 0; o < block->outputs; ++o) {
        struct norm *norm = block->norms + o;
        const double sum = totals[o], along = totals[block->outputs + o], mean = norm->mean, inverse = norm->inverse;
        const double of_grad = norm->gamma * inverse, of_y = -of_grad * (inverse * inverse) * along / values;
        const double of_mean = -of_grad * sum / values;
        const int varies = norm->inverse < of_constant;
        const float by_grad = varies ? (float)of_grad : 0, by_y = varies ? (float)of_y : 0;
        const float of_largest = fabsf(by_grad) * terms[o], of_farthest = fabsf(by_y) * terms[block->outputs + o];
        float size = of_largest + of_farthest;
        size += fabsf(varies ? (float)of_mean : 0);
        if (!(size <= bound)) bound = size;
        terms[o] = by_grad;
        terms[block->outputs + o] = by_y;
        terms[2 * block->outputs + o] = varies ? (float)(of_mean - of_y * mean) : 0;
    }
    if (!(bound - bound == 0)) return bound;
    for (o = 0; o < block->outputs; ++o) {
        struct norm *norm = block->norms + o;
        const float of_gamma = (float)(norm->inverse * totals[block->outputs + o]);
        adam(&norm->gamma, &norm->gamma_mean, &norm->gamma_square, of_gamma, rate);
        adam(&norm->beta, &norm->beta_mean, &norm->beta_square, (float)totals[o], rate);
    }
    return bound;
}

/*** round_gradient */
/* The gradient of all products, before the pooling, as integers; returns their scale. */
static float round_gradient(const struct block *block, const uint16_t *incoming, int count, float bound) {
    const int largest = block->largest;
    const float step = bound / (float)largest;
    const float scale = step >= 0x1p-126f ? step : 0, inverse = step >= 0x1p-126f ? 1 / step : 0;
    const ptrdiff_t unpooled = (ptrdiff_t)block->unpooled[0] * block->unpooled[1];
    const uint32_t key = draw_key();
    int n, p, o;
    memset(integers, 0, (size_t)(count * unpooled * block->outputs));
    for (n = 0; n < count; ++n) {
        for (p = 0; p < block_pixels(block); ++p) {
            const ptrdiff_t place = (ptrdiff_t)n * block_pixels(block) + p;
            const int top = p / block->out[1] * block->pool_stride[0], left = p % block->out[1] * block->pool_stride[1];
            multiply(block, n, p);
            for (o = 0; o < block->outputs; ++o) {
                const uint32_t random = random_bits(key, (uint32_t)(place * block->outputs + o));
                const int row = top + choices[o] / block->pool[1], column = left + choices[o] % block->pool[1];
                float value = gradient_at(block, incoming, place, o) * terms[o], below;
                float rest = products[o] * terms[block->outputs + o];
                int rounded;
                rest += terms[2 * block->outputs + o];
                value += rest;
                value *= inverse;
                below = floorf(value);
                rounded = (int)below + (value - below > (float)(random >> 8) * 0x1p-24f);
                rounded = rounded > largest ? largest : rounded < -largest ? -largest : rounded;
                integers[(n * unpooled + row * block->unpooled[1] + column) * block->outputs + o] = (int8_t)rounded;
            }
        }
    }
    return scale;
}

/*** integers_of */
/* The integers of the product of which a pixel of the input was a tap; 0 where there is none. */
static const int8_t *integers_of(const struct block *block, int example, int y, int x, int tap) {
    const int down = y + block->padding[0] - tap / block->kernel[1] * block->dilation[0];
    const int right = x + block->padding[1] - tap % block->kernel[1] * block->dilation[1];
    const int row = down / block->stride[0], column = right / block->stride[1];
    if (down < 0 || right < 0 || down % block->stride[0] || right % block->stride[1]) return 0;
    if (row >= block->unpooled[0] || column >= block->unpooled[1]) return 0;
    return integers + (((ptrdiff_t)example * block->unpooled[0] + row) * block->unpooled[1] + column) * block->outputs;
}

/*** find_input_gradient */
static void find_input_gradient(const struct block *block, float scale, int count, uint16_t *outgoing) {
    const int taps = block_taps(block), channels = block->channels;
    int n, y, x, tap, o, c;
    for (n = 0; n < count; ++n) {
        for (y = 0; y < block->size[0]; ++y) {
            for (x = 0; x < block->size[1]; ++x, outgoing += channels) {
                for (c = 0; c < channels; ++c) sums[c] = 0;
                for (tap = 0; tap < taps; ++tap) {
                    const int8_t *q = integers_of(block, n, y, x, tap);
                    const int8_t *codes = block->codes + tap * channels;
                    for (o = 0; q && o < block->outputs; ++o, codes += taps * channels) {
                        for (c = 0; q[o] && c < channels; ++c) sums[c] += codes[c] < 0 ? -q[o] : q[o];
                    }
                }
                for (c = 0; c < channels; ++c) outgoing[c] = to_bfloat16((float)sums[c] * scale);
            }
        }
    }
}

/*** draw_ternary */
/* The integers become -1, 0 and 1 at random, and `terms` the value of a 1 of each output. */
static void draw_ternary(const struct block *block, float scale, int count) {
    const ptrdiff_t end = (ptrdiff_t)count * block->unpooled[0] * block->unpooled[1] * block->outputs;
    const uint32_t key = draw_key();
    ptrdiff_t i;
    int o;
    for (o = 0; o < block->outputs; ++o) {
        uint64_t sizes = 0, squares = 0;
        uint32_t odds;
        for (i = o; i < end; i += block->outputs) {
            const int size = integers[i] < 0 ? -integers[i] : integers[i];
            sizes += (uint64_t)size;
            squares += (uint64_t)(size * size);
        }
        odds = squares ? (uint32_t)((sizes << 15) / squares) : 0;
        for (i = o; i < end; i += block->outputs) {
            const int sign = (integers[i] > 0) - (integers[i] < 0);
            const uint32_t most = (uint32_t)(integers[i] * sign) * odds;
            integers[i] = (int8_t)(random_bits(key, (uint32_t)i) >> 16 < most ? sign : 0);
        }
        terms[o] = odds ? scale * (65536 / (float)odds) : 0;
    }
}

/*** code_step_type */
/* A step of codes of accumulators, of which a gradient of the mean size of its row moves by `size`. */
struct code_step {
    double size, left;  /* `left`: what the mean of the squares has of all gradients so far */
    float bound;
    int beyond;
    uint32_t key;
};

/*** code_step_of */
static struct code_step code_step_of(const struct block *block, double rate) {
    double beyond = HYSTERESIS_STEPS * (LEARNING_RATE * rate);
    struct code_step step;
    step.size = 128 * (LEARNING_RATE * rate);
    step.left = 1 - pow(ROW_DECAY, (double)step_number);
    step.bound = (float)(LIMIT_STEPS * step.size < 256 ? LIMIT_STEPS * step.size : 256);
    beyond = beyond < 1 ? 128 * beyond : 128;
    step.beyond = (int)ceil(beyond < 127 ? beyond : 127);
    step.key = rounding_key((uint64_t)block->number);
    return step;
}

/*** mean_square */
/* Of a row of the gradient: that of whole numbers of units, whose squares add up exactly. */
static double mean_square(int places) {
    uint64_t total = 0;
    float units;
    int exponent, k, largest = 0;
    for (k = 0; k < places; ++k) {
        const int size = of_row[k] & 0x7FFF;
        largest = size > largest ? size : largest;
    }
    exponent = (largest >> 7) - 126 > -100 ? (largest >> 7) - 126 : -100;
    units = (float)ldexp(1, 15 - exponent);
    for (k = 0; k < places; ++k) {
        float value = fabsf(from_bfloat16(of_row[k])) * units;
        uint32_t whole;
        value += 0.5f;
        whole = (uint32_t)value;
        total += (uint64_t)whole * whole;
    }
    return ldexp((double)total, 2 * (exponent - 15)) / places;
}

/*** step_row */
/* A row of codes goes against its gradient over the root of the mean of its squares. A code that changes its sign goes
   beyond 0 by the hysteresis. */
static void step_row(const struct block *block, int o, int places, const struct code_step *step) {
    const double square = mean_square(places);
    float *kept = block->squares + o, rate;
    int k;
    *kept = (float)(*kept * ROW_DECAY + square * (1 - ROW_DECAY));
    rate = (float)(step->size / (sqrt(*kept / step->left) + ROW_EPS));
    for (k = 0; k < places; ++k) {
        const uint32_t index = (uint32_t)o * (uint32_t)places + (uint32_t)k;
        const uint32_t random = random_bits(step->key, index / 2) >> index % 2 * 16 & 0xFFFFu;
        const int code = block->codes[index];
        float move = from_bfloat16(of_row[k]) * rate;
        int moved;
        move = move > step->bound ? step->bound : move < -step->bound ? -step->bound : move;
        move += ((float)random + 0.5f) * 0x1p-16f;
        moved = code - (int)floorf(move);
        if ((moved < 0) != (code < 0)) {
            if (moved < 0 && moved > -step->beyond) moved = -step->beyond;
            if (moved >= 0 && moved < step->beyond) moved = step->beyond;
        }
        block->codes[index] = (int8_t)(moved > 127 ? 127 : moved < -128 ? -128 : moved);
    }
}

/*** step_weights */
/* By sums of integers, of which `terms` has each output's scale. */
static void step_weights(const struct block *block, int count, double rate) {
    const int taps = block_taps(block), channels = block->channels, words = (channels + 31) / 32;
    const struct code_step step = code_step_of(block, rate);
    int o, tap, n, y, x, c;
    for (o = 0; o < block->outputs; ++o) {
        for (tap = 0; tap < taps; ++tap) {
            const uint32_t *bits = block->x;
            for (c = 0; c < channels; ++c) sums[c] = 0;
            for (n = 0; n < count; ++n) {
                for (y = 0; y < block->size[0]; ++y) {
                    for (x = 0; x < block->size[1]; ++x, bits += words) {
                        const int8_t *of_product = integers_of(block, n, y, x, tap);
                        const int q = of_product ? of_product[o] : 0;
                        for (c = 0; q && c < channels; ++c) sums[c] += bits[c / 32] >> c % 32 & 1u ? q : -q;
                    }
                }
            }
            for (c = 0; c < channels; ++c) of_row[tap * channels + c] = to_bfloat16((float)sums[c] * terms[o]);
        }
        step_row(block, o, taps * channels, &step);
    }
}

/*** patch_gradient */
/* The gradient of a weight of a convolution that takes the examples, each term added in one rounding. Rows of pixels are
   summed by themselves, then those of a sixteenth of all rows, then the sixteenths. */
static float patch_gradient(const struct block *block, int o, int place, int count) {
    const int channels = block->channels, tap = place / channels, rows = count * block->unpooled[0];
    const int part_rows = (rows + 15) / 16;
    float total = 0, of_part = 0;
    int row, column;
    for (row = 0; row < rows; ++row) {
        const int n = row / block->unpooled[0], y = row % block->unpooled[0];
        const int from = y * block->stride[0] - block->padding[0] + tap / block->kernel[1] * block->dilation[0];
        float sum = 0;
        for (column = 0; from >= 0 && from < block->size[0] && column < block->unpooled[1]; ++column) {
            const int at = column * block->stride[1] - block->padding[1] + tap % block->kernel[1] * block->dilation[1];
            const ptrdiff_t product = (ptrdiff_t)row * block->unpooled[1] + column;
            if (at >= 0 && at < block->size[1]) {
                const float x = input_value(n, from * block->size[1] + at, place % channels);
                sum = fmaf((float)integers[product * block->outputs + o], x, sum);
            }
        }
        of_part += sum;
        if (row % part_rows == part_rows - 1 || row + 1 == rows) {
            total += of_part;
            of_part = 0;
        }
    }
    return total;
}

/*** row_gradient */
/* The gradient of a weight of a linear layer that takes the examples, each term added in one rounding. */
static float row_gradient(const struct block *block, int o, int place, int count) {
    float sum = 0;
    int n;
    for (n = 0; n < count; ++n) {
        const float x = input_value(n, place % INPUT_PIXELS, place / INPUT_PIXELS);
        sum = fmaf((float)integers[(ptrdiff_t)n * block->outputs + o], x, sum);
    }
    return sum;
}

/*** step_first_weights */
/* By real sums. */
static void step_first_weights(const struct block *block, float scale, int count, double rate) {
    const int places = block_taps(block) * block->channels;
    const struct code_step step = code_step_of(block, rate);
    int o, k;
    for (o = 0; o < block->outputs; ++o) {
        for (k = 0; k < places; ++k) of_row[k] = to_bfloat16(block->gradient(block, o, k, count) * scale);
        step_row(block, o, places, &step);
    }
}

/*** backward_block */
/* Returns whether the gradient is finite; if not, the weights of this block and of those before it stay. */
static int backward_block(const struct block *block, const uint16_t *incoming, uint16_t *outgoing, int count,
                          double rate) {
    float bound, scale;
    int o;
    pack_weights(block);
    bound = find_terms(block, incoming, count, rate);
    if (!(bound - bound == 0)) return 0;
    scale = round_gradient(block, incoming, count, bound);
    if (!block->x) {
        step_first_weights(block, scale, count, rate);
        return 1;
    }
    find_input_gradient(block, scale, count, outgoing);
    for (o = 0; o < block->outputs; ++o) terms[o] = scale;
    if (block->is_ternary) draw_ternary(block, scale, count);
    step_weights(block, count, rate);
    return 1;
}

/*** unpool_gradient */
/* The gradient goes to the first of the largest. */
static void unpool_gradient(const struct window *window, const uint16_t *incoming, uint16_t *outgoing, int count) {
    const int words = (window->channels + 31) / 32, channels = window->channels;
    const ptrdiff_t pixels = (ptrdiff_t)window->size[0] * window->size[1];
    const uint32_t *image = window->x;
    int n, i, j, k, l, c;
    memset(outgoing, 0, (size_t)(count * pixels * channels) * sizeof *outgoing);
    for (n = 0; n < count; ++n, image += pixels * words, outgoing += pixels * channels) {
        for (i = 0; i < window->out[0]; ++i) {
            for (j = 0; j < window->out[1]; ++j, incoming += channels) {
                for (c = 0; c < channels; ++c) {
                    ptrdiff_t place = (ptrdiff_t)i * window->stride[0] * window->size[1] + j * window->stride[1];
                    int is_found = 0;
                    for (k = 0; k < window->pool[0]; ++k) {
                        for (l = 0; l < window->pool[1]; ++l) {
                            const int row = i * window->stride[0] + k, column = j * window->stride[1] + l;
                            const ptrdiff_t at = (ptrdiff_t)row * window->size[1] + column;
                            if (!is_found && (image[at * words + c / 32] >> c % 32 & 1u)) {
                                is_found = 1;
                                place = at;
                            }
                        }
                    }
                    outgoing[place * channels + c] = incoming[c];
                }
            }
        }
    }
}

/*** unflatten_gradient */
static void unflatten_gradient(const struct window *window, const uint16_t *incoming, uint16_t *outgoing, int count) {
    const int pixels = window->size[0] * window->size[1], channels = window->channels;
    int n, p, c;
    for (n = 0; n < count; ++n, incoming += pixels * channels, outgoing += pixels * channels) {
        for (p = 0; p < pixels; ++p) {
            for (c = 0; c < channels; ++c) outgoing[p * channels + c] = incoming[c * pixels + p];
        }
    }
}

/*** has_finite_statistics */
static int has_finite_statistics(const struct block *block) {
    int o;
    for (o = 0; o < block->outputs; ++o) {
        if (!(block->norms[o].variance - block->norms[o].variance == 0)) return 0;
    }
    return 1;
}

/*** take_in_statistics */
/* The running statistics take in those of the batch. */
static void take_in_statistics(const struct block *block, int count) {
    const double values = (double)count * block_pixels(block), momentum = block->momentum;
    int o;
    for (o = 0; o < block->outputs; ++o) {
        struct norm *norm = block->norms + o;
        const double unbiased = norm->variance * (values / (values - 1));
        norm->running_mean = (float)(momentum * norm->mean + (1 - momentum) * norm->running_mean);
        norm->running_variance = (float)(momentum * unbiased + (1 - momentum) * norm->running_variance);
    }
}

/*** find_loss */
/* The mean cross entropy; logits become its gradient. */
static float find_loss(const int *labels, int count) {
    const float share = 1.0f / (float)count;
    double loss = 0;
    int n, i;
    for (n = 0; n < count; ++n) {
        float *x = head + n * CLASSES, largest = x[0], sum = 0, logarithm;
        for (i = 1; i < CLASSES; ++i) largest = x[i] > largest ? x[i] : largest;
        for (i = 0; i < CLASSES; ++i) sum += expf(x[i] - largest);
        logarithm = logf(sum);
        loss -= (double)(x[labels[n]] - largest - logarithm);
        for (i = 0; i < CLASSES; ++i) {
            const float part = expf(x[i] - largest - logarithm) * share;
            x[i] = i == labels[n] ? part - share : part;
        }
    }
    return (float)(loss / count);
}
