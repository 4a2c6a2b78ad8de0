/* The functions of a source that learns: a step of the preset edge-min. The formulas are those of bnn/ops, and each is
   rounded where they are. Parts begin as those of kernels.c do. What one function leaves to the next lies in arrays of the
   source: `products` and `choices` of a pixel, `integers`, the gradient of all products of a block, and `packed`, the signs
   of its weights. Gradients between blocks are bfloat16. */

/*** norm_type */
/* One channel of a batch norm: what is learned, the running statistics, those of the batch, and the moments of Adam. */
struct norm {
    float gamma, beta, running_mean, running_variance;
    float mean, variance, inverse;
    float gamma_mean, gamma_square, beta_mean, beta_square;
};

/*** block_type */
/* Product, pooling, norm and sign; the last block has no sign. Sizes are (height, width). */
struct block {
    int size[2], kernel[2], stride[2], padding[2], dilation[2];
    int unpooled[2], pool[2], pool_stride[2], out[2];
    int channels, outputs;
    int is_rounded;            /* whether products are of float16 */
    int largest;               /* integer of the products' gradient */
    int is_ternary;            /* whether the gradient of its weights is that of a ternary one */
    int number;                /* of the weights in the optimizer */
    double eps, momentum;      /* of the norm */
    float edge;                /* beyond which a sign has no gradient */
    int8_t *codes;             /* accumulators, [outputs][kernel height][kernel width][channels] */
    float *squares;            /* of gradients, the running means of the rows */
    struct norm *norms;        /* [outputs] */
    const uint32_t *x;         /* bits; 0 where the block takes the examples */
    uint32_t *bits, *outside;  /* signs, and where |x| is beyond the edge; 0 in the last block */
    void (*sum)(const struct block *block, int example, int row, int column);
    float (*gradient)(const struct block *block, int output, int place, int count); /* where it takes the examples */
};

/*** block_pixels */
static int block_pixels(const struct block *block) { return block->out[0] * block->out[1]; }

/*** block_taps */
static int block_taps(const struct block *block) { return block->kernel[0] * block->kernel[1]; }

/*** take_product */
/* A product of one place of a window, of which the first of the largest stays. */
static void take_product(const struct block *block, int output, float product, int number) {
    const float y = block->is_rounded ? to_float16(product) : product;
    if (number && !(y > products[output])) return;
    products[output] = y;
    choices[output] = (uint8_t)number;
}

/*** multiply_bits */
static void multiply_bits(const struct block *block, int example, int row, int column) {
    const int words = (block->channels + 31) / 32, taps = block_taps(block);
    const uint32_t *x = block->x + (ptrdiff_t)example * block->size[0] * block->size[1] * words;
    const int top = row * block->stride[0] - block->padding[0], left = column * block->stride[1] - block->padding[1];
    const int number = row % block->pool_stride[0] * block->pool[1] + column % block->pool_stride[1];
    int first_y, end_y, first_x, end_x, o, i, j, k;
    int32_t terms_here;
    valid_taps(top, block->dilation[0], block->kernel[0], block->size[0], &first_y, &end_y);
    valid_taps(left, block->dilation[1], block->kernel[1], block->size[1], &first_x, &end_x);
    terms_here = (int32_t)(end_y - first_y) * (end_x - first_x) * block->channels;
    for (o = 0; o < block->outputs; ++o) {
        uint32_t unequal = 0;
        for (i = first_y; i < end_y; ++i) {
            for (j = first_x; j < end_x; ++j) {
                const int y = top + i * block->dilation[0], from = left + j * block->dilation[1];
                const uint32_t *a = x + ((ptrdiff_t)y * block->size[1] + from) * words;
                const uint32_t *b = packed + ((ptrdiff_t)o * taps + i * block->kernel[1] + j) * words;
                for (k = 0; k < words; ++k) unequal += count_ones(a[k] ^ b[k]);
            }
        }
        take_product(block, o, (float)(terms_here - 2 * (int32_t)unequal), number);
    }
}

/*** multiply_patch */
/* A convolution of an example. The terms go in the order of the patch. */
static void multiply_patch(const struct block *block, int example, int row, int column) {
    const int top = row * block->stride[0] - block->padding[0], left = column * block->stride[1] - block->padding[1];
    const int number = row % block->pool_stride[0] * block->pool[1] + column % block->pool_stride[1];
    const int8_t *codes = block->codes;
    int i, j, c, o, k, count = 0;
    for (i = 0; i < block->kernel[0]; ++i) {
        for (j = 0; j < block->kernel[1]; ++j) {
            const int y = top + i * block->dilation[0], x = left + j * block->dilation[1];
            const int is_inside = y >= 0 && x >= 0 && y < block->size[0] && x < block->size[1];
            for (c = 0; c < block->channels; ++c) {
                inputs[count++] = is_inside ? input_value(example, y * block->size[1] + x, c) : 0;
            }
        }
    }
    for (o = 0; o < block->outputs; ++o, codes += count) {
        float sum = 0;
        for (k = 0; k < count; ++k) sum += codes[k] < 0 ? -inputs[k] : inputs[k];
        take_product(block, o, sum, number);
    }
}

/*** multiply_row */
/* A linear layer of an example, in torch's order of its values. The sum of up to 384 features goes in their order, and
   then that of these sums: so does torch's library of linear algebra on processors with AVX-512, from a batch of 32 on. */
static void multiply_row(const struct block *block, int example, int row, int column) {
    const int8_t *codes = block->codes;
    int o, k;
    (void)row;
    (void)column;
    for (k = 0; k < block->channels; ++k) inputs[k] = input_value(example, k % INPUT_PIXELS, k / INPUT_PIXELS);
    for (o = 0; o < block->outputs; ++o, codes += block->channels) {
        float total = 0, sum = 0;
        for (k = 0; k < block->channels; ++k) {
            sum += codes[k] < 0 ? -inputs[k] : inputs[k];
            if (k % 384 == 383) {
                total += sum;
                sum = 0;
            }
        }
        take_product(block, o, total + sum, 0);
    }
}

/*** pack_weights */
/* The signs of a block's weights, each tap beginning with a word. */
static void pack_weights(const struct block *block) {
    const int words = (block->channels + 31) / 32, rows = block->outputs * block_taps(block);
    const int8_t *codes = block->codes;
    int i, c;
    if (!block->x) return;
    for (i = 0; i < rows; ++i, codes += block->channels) {
        for (c = 0; c < words; ++c) packed[i * words + c] = 0;
        for (c = 0; c < block->channels; ++c) packed[i * words + c / 32] |= (uint32_t)(codes[c] >= 0) << c % 32;
    }
}

/*** multiply */
/* The products of a pixel behind the pooling. */
static void multiply(const struct block *block, int example, int pixel) {
    const int top = pixel / block->out[1] * block->pool_stride[0], left = pixel % block->out[1] * block->pool_stride[1];
    int k, l;
    for (k = 0; k < block->pool[0]; ++k) {
        for (l = 0; l < block->pool[1]; ++l) block->sum(block, example, top + k, left + l);
    }
}

/*** take_statistics */
/* The mean and variance of each channel over a batch. */
static void take_statistics(const struct block *block, int count) {
    const double values = (double)count * block_pixels(block);
    int n, p, o;
    for (o = 0; o < 2 * block->outputs; ++o) totals[o] = 0;
    for (n = 0; n < count; ++n) {
        for (p = 0; p < block_pixels(block); ++p) {
            multiply(block, n, p);
            for (o = 0; o < block->outputs; ++o) {
                const float square = products[o] * products[o];
                totals[o] += products[o];
                totals[block->outputs + o] += square;
            }
        }
    }
    for (o = 0; o < block->outputs; ++o) {
        struct norm *norm = block->norms + o;
        const double mean = totals[o] / values, spread = totals[block->outputs + o] / values - mean * mean;
        norm->mean = (float)mean;
        norm->variance = (float)(spread < 0 ? 0 : spread);
        norm->inverse = (float)(1 / sqrt((double)norm->variance + block->eps));
    }
}

/*** forward_block */
/* By the statistics of the batch, or to evaluate by the running ones. */
static void forward_block(const struct block *block, int count, int is_training) {
    const int words = (block->outputs + 31) / 32;
    int n, p, o, k;
    pack_weights(block);
    if (is_training) take_statistics(block, count);
    for (o = 0; o < block->outputs; ++o) {
        const struct norm *norm = block->norms + o;
        const float inverse = is_training ? norm->inverse : 1 / sqrtf(norm->running_variance + (float)block->eps);
        const float mean = is_training ? norm->mean : norm->running_mean;
        const float shift = -(inverse * norm->gamma) * mean;
        terms[o] = inverse * norm->gamma;
        terms[block->outputs + o] = shift + norm->beta;
    }
    for (n = 0; n < count; ++n) {
        for (p = 0; p < block_pixels(block); ++p) {
            const ptrdiff_t place = (ptrdiff_t)n * block_pixels(block) + p;
            multiply(block, n, p);
            for (k = 0; block->bits && k < words; ++k) {
                block->bits[place * words + k] = block->outside[place * words + k] = 0;
            }
            for (o = 0; o < block->outputs; ++o) {
                const float scaled = products[o] * terms[o], x = scaled + terms[block->outputs + o];
                if (block->bits) {
                    block->bits[place * words + o / 32] |= (uint32_t)!(x < 0) << o % 32;
                    block->outside[place * words + o / 32] |= (uint32_t)(fabsf(x) > block->edge) << o % 32;
                } else {
                    head[n * block->outputs + o] = x;
                }
            }
        }
    }
}

/*** window_type */
/* A pooling of bits, whose windows lie apart, or a flattening. Sizes are (height, width). */
struct window {
    int size[2], pool[2], stride[2], out[2];
    int channels;
    const uint32_t *x;
    uint32_t *bits;
};

/*** pool_signs */
static void pool_signs(const struct window *window, int count) {
    const int words = (window->channels + 31) / 32;
    const uint32_t *image = window->x;
    uint32_t *out = window->bits;
    int n, i, j, k, l, m;
    for (n = 0; n < count; ++n, image += (ptrdiff_t)window->size[0] * window->size[1] * words) {
        for (i = 0; i < window->out[0]; ++i) {
            for (j = 0; j < window->out[1]; ++j, out += words) {
                for (m = 0; m < words; ++m) out[m] = 0;
                for (k = 0; k < window->pool[0]; ++k) {
                    for (l = 0; l < window->pool[1]; ++l) {
                        const int row = i * window->stride[0] + k, column = j * window->stride[1] + l;
                        const uint32_t *x = image + ((ptrdiff_t)row * window->size[1] + column) * words;
                        for (m = 0; m < words; ++m) out[m] |= x[m];
                    }
                }
            }
        }
    }
}

/*** flatten_signs */
/* From (height, width, channels) to torch's order, (channels, height, width). */
static void flatten_signs(const struct window *window, int count) {
    const int pixels = window->size[0] * window->size[1], words = (window->channels + 31) / 32;
    const int flat_words = (pixels * window->channels + 31) / 32;
    int n, p, c;
    for (n = 0; n < count; ++n) {
        uint32_t *out = window->bits + (ptrdiff_t)n * flat_words;
        for (p = 0; p < flat_words; ++p) out[p] = 0;
        for (p = 0; p < pixels; ++p) {
            for (c = 0; c < window->channels; ++c) {
                const uint32_t bit = window->x[((ptrdiff_t)n * pixels + p) * words + c / 32] >> c % 32 & 1u;
                out[(c * pixels + p) / 32] |= bit << (c * pixels + p) % 32;
            }
        }
    }
}
