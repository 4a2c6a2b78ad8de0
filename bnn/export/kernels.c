/* The functions of a generated source. Each part begins with the name of its function; a source has those that it calls.
   Bits of a pixel lie in words of 32, the first channel lowest; those past the last channel are 0. */

/*** layer_type */
/* A convolution and the windows of its pooling, all of them as (height, width). */
struct layer {
    int size[2], kernel[2], stride[2], padding[2], dilation[2];
    int unpooled[2], pool[2], pool_stride[2], pool_padding[2], out[2];
    int channels;
    int outputs;
    const void *weight;
    void (*sum)(const struct layer *layer, const void *x, int row, int column, int is_first);
    void (*finish)(int pixel);
};

/*** count_ones */
static uint32_t count_ones(uint32_t word) {
#if defined(__GNUC__) && (defined(__POPCNT__) || defined(__aarch64__)) && !defined(WITHOUT_POPCOUNT)
    return (uint32_t)__builtin_popcount(word);
#else
#if defined(__GNUC__) && !defined(WITHOUT_POPCOUNT)
#pragma message("slower path: this compiler has no instruction that counts ones, so shifts and additions do; x86: -mpopcnt")
#endif
    word = word - ((word >> 1) & 0x55555555u);
    word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
    word = (word + (word >> 4)) & 0x0F0F0F0Fu;
    return (word * 0x01010101u) >> 24;
#endif
}

/*** valid_taps */
/* The taps from *first to before *end whose place, start + tap dilation, lies in an image of this size. */
static void valid_taps(int start, int dilation, int kernel, int size, int *first, int *end) {
    *first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    *end = start >= size ? 0 : (size - 1 - start) / dilation + 1;
    if (*end > kernel) *end = kernel;
    if (*end < *first) *end = *first;
}

/*** sum_bits */
/* The sums of one place, of bits with bits: the number of equal ones less that of others. */
static void sum_bits(const struct layer *layer, const void *input, int row, int column, int is_first) {
    const uint32_t *x = input, *weight = layer->weight;
    const int words = (layer->channels + 31) / 32;
    const int top = row * layer->stride[0] - layer->padding[0], left = column * layer->stride[1] - layer->padding[1];
    int first_y, end_y, first_x, end_x, o, i, j, k;
    valid_taps(top, layer->dilation[0], layer->kernel[0], layer->size[0], &first_y, &end_y);
    valid_taps(left, layer->dilation[1], layer->kernel[1], layer->size[1], &first_x, &end_x);
    {
        /* Taps side by side lie side by side in memory. */
        const int runs = layer->dilation[1] == 1 ? 1 : end_x - first_x;
        const int run = (layer->dilation[1] == 1 ? end_x - first_x : 1) * words;
        const int32_t terms = (int32_t)(end_y - first_y) * (end_x - first_x) * layer->channels;
        for (o = 0; o < layer->outputs; ++o) {
            uint32_t unequal = 0;
            int32_t sum;
            for (i = first_y; i < end_y; ++i) {
                for (j = 0; j < runs; ++j) {
                    const int y = top + i * layer->dilation[0], from = left + (first_x + j) * layer->dilation[1];
                    const uint32_t *a = x + ((ptrdiff_t)y * layer->size[1] + from) * words;
                    const uint32_t *b = weight + (((ptrdiff_t)o * layer->kernel[0] + i) * layer->kernel[1] + first_x + j) * words;
                    for (k = 0; k < run; ++k) unequal += count_ones(a[k] ^ b[k]);
                }
            }
            sum = terms - 2 * (int32_t)unequal;
            if (is_first || sum > whole_sums[o]) whole_sums[o] = sum;
        }
    }
}

/*** sum_reals_of_bits */
/* The sums of one place, of floats with bits, whose rows begin with a word. The order of the terms is that of the patch. */
static void sum_reals_of_bits(const struct layer *layer, const void *input, int row, int column, int is_first) {
    const float *x = input;
    const uint32_t *weight = layer->weight;
    const int channels = layer->channels, row_words = (layer->kernel[0] * layer->kernel[1] * channels + 31) / 32;
    const int top = row * layer->stride[0] - layer->padding[0], left = column * layer->stride[1] - layer->padding[1];
    int first_y, end_y, first_x, end_x, o, i, j, k;
    valid_taps(top, layer->dilation[0], layer->kernel[0], layer->size[0], &first_y, &end_y);
    valid_taps(left, layer->dilation[1], layer->kernel[1], layer->size[1], &first_x, &end_x);
    for (o = 0; o < layer->outputs; ++o, weight += row_words) {
        float sum = 0;
        for (i = first_y; i < end_y; ++i) {
            for (j = first_x; j < end_x; ++j) {
                const int y = top + i * layer->dilation[0], from = left + j * layer->dilation[1];
                const float *a = x + ((ptrdiff_t)y * layer->size[1] + from) * channels;
                const int place = (i * layer->kernel[1] + j) * channels;
                for (k = 0; k < channels; ++k) {
                    const float signed_values[2] = {-a[k], a[k]};
                    sum += signed_values[weight[(place + k) / 32] >> ((place + k) % 32) & 1u];
                }
            }
        }
        if (is_first || sum > real_sums[o]) real_sums[o] = sum;
    }
}

/*** sum_reals */
/* The sums of one place, of floats with floats; product and sum are rounded one after the other. */
static void sum_reals(const struct layer *layer, const void *input, int row, int column, int is_first) {
    const float *x = input, *weight = layer->weight;
    const int channels = layer->channels;
    const int top = row * layer->stride[0] - layer->padding[0], left = column * layer->stride[1] - layer->padding[1];
    int first_y, end_y, first_x, end_x, o, i, j, k;
    valid_taps(top, layer->dilation[0], layer->kernel[0], layer->size[0], &first_y, &end_y);
    valid_taps(left, layer->dilation[1], layer->kernel[1], layer->size[1], &first_x, &end_x);
    for (o = 0; o < layer->outputs; ++o) {
        float sum = 0;
        for (i = first_y; i < end_y; ++i) {
            for (j = first_x; j < end_x; ++j) {
                const int y = top + i * layer->dilation[0], from = left + j * layer->dilation[1];
                const float *a = x + ((ptrdiff_t)y * layer->size[1] + from) * channels;
                const float *b = weight + (((ptrdiff_t)o * layer->kernel[0] + i) * layer->kernel[1] + j) * channels;
                for (k = 0; k < channels; ++k) {
                    const float term = a[k] * b[k];
                    sum += term;
                }
            }
        }
        if (is_first || sum > real_sums[o]) real_sums[o] = sum;
    }
}

/*** sum_fused */
/* The sums of one place, of floats with floats; product and sum are rounded once, as real convolutions have it. */
static void sum_fused(const struct layer *layer, const void *input, int row, int column, int is_first) {
    const float *x = input, *weight = layer->weight;
    const int channels = layer->channels;
    const int top = row * layer->stride[0] - layer->padding[0], left = column * layer->stride[1] - layer->padding[1];
    int first_y, end_y, first_x, end_x, o, i, j, k;
    valid_taps(top, layer->dilation[0], layer->kernel[0], layer->size[0], &first_y, &end_y);
    valid_taps(left, layer->dilation[1], layer->kernel[1], layer->size[1], &first_x, &end_x);
    for (o = 0; o < layer->outputs; ++o) {
        float sum = 0;
        for (i = first_y; i < end_y; ++i) {
            for (j = first_x; j < end_x; ++j) {
                const int y = top + i * layer->dilation[0], from = left + j * layer->dilation[1];
                const float *a = x + ((ptrdiff_t)y * layer->size[1] + from) * channels;
                const float *b = weight + (((ptrdiff_t)o * layer->kernel[0] + i) * layer->kernel[1] + j) * channels;
                for (k = 0; k < channels; ++k) sum = fmaf(a[k], b[k], sum);
            }
        }
        if (is_first || sum > real_sums[o]) real_sums[o] = sum;
    }
}

/*** sum_row */
/* The sums of a linear layer, of floats with floats: 8 at a time, whose errors add up less than those of one would, since
   the order of torch is not known. */
static void sum_row(const struct layer *layer, const void *input, int row, int column, int is_first) {
    const float *x = input, *weight = layer->weight;
    const int channels = layer->channels;
    int o, i, k;
    (void)row, (void)column, (void)is_first;
    for (o = 0; o < layer->outputs; ++o, weight += channels) {
        float sums[8] = {0};
        for (i = 0; i < channels; i += 8) {
            for (k = 0; k < 8 && i + k < channels; ++k) {
                const float term = x[i + k] * weight[i + k];
                sums[k] += term;
            }
        }
        real_sums[o] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    }
}

/*** run_layer */
/* The sums of every pixel, the largest of each window where there is a pooling, and what becomes of them. */
static void run_layer(const struct layer *layer, const void *x) {
    int i, j, k, l;
    for (i = 0; i < layer->out[0]; ++i) {
        for (j = 0; j < layer->out[1]; ++j) {
            int is_first = 1;
            for (k = 0; k < layer->pool[0]; ++k) {
                const int row = i * layer->pool_stride[0] - layer->pool_padding[0] + k;
                if (row < 0 || row >= layer->unpooled[0]) continue;
                for (l = 0; l < layer->pool[1]; ++l) {
                    const int column = j * layer->pool_stride[1] - layer->pool_padding[1] + l;
                    if (column < 0 || column >= layer->unpooled[1]) continue;
                    layer->sum(layer, x, row, column, is_first);
                    is_first = 0;
                }
            }
            layer->finish(i * layer->out[1] + j);
        }
    }
}

/*** take_whole_signs */
static void take_whole_signs(const threshold *least, const uint32_t *inverted, int channels, uint32_t *out) {
    int i, j;
    for (i = 0; i < channels; i += 32) {
        uint32_t word = 0;
        for (j = 0; j < 32 && i + j < channels; ++j) word |= (uint32_t)(whole_sums[i + j] >= least[i + j]) << j;
        out[i / 32] = inverted ? word ^ inverted[i / 32] : word;
    }
}

/*** take_real_signs */
static void take_real_signs(const float *least, const uint32_t *inverted, int channels, uint32_t *out) {
    int i, j;
    for (i = 0; i < channels; i += 32) {
        uint32_t word = 0;
        for (j = 0; j < 32 && i + j < channels; ++j) word |= (uint32_t)(real_sums[i + j] >= least[i + j]) << j;
        out[i / 32] = inverted ? word ^ inverted[i / 32] : word;
    }
}

/*** pool_bits */
/* The maximum of bits is their disjunction. */
static void pool_bits(const struct layer *layer, const uint32_t *x, uint32_t *out) {
    const int words = (layer->channels + 31) / 32;
    int i, j, k, l, m;
    for (i = 0; i < layer->out[0]; ++i) {
        for (j = 0; j < layer->out[1]; ++j, out += words) {
            for (m = 0; m < words; ++m) out[m] = 0;
            for (k = 0; k < layer->pool[0]; ++k) {
                const int row = i * layer->pool_stride[0] - layer->pool_padding[0] + k;
                if (row < 0 || row >= layer->size[0]) continue;
                for (l = 0; l < layer->pool[1]; ++l) {
                    const int column = j * layer->pool_stride[1] - layer->pool_padding[1] + l;
                    if (column < 0 || column >= layer->size[1]) continue;
                    for (m = 0; m < words; ++m) out[m] |= x[((ptrdiff_t)row * layer->size[1] + column) * words + m];
                }
            }
        }
    }
}

/*** pool_reals */
/* Maxima, or means of what lies in the image. */
static void pool_reals(const struct layer *layer, real_reader read, real_writer write, int is_mean) {
    int i, j, k, l, c;
    for (i = 0; i < layer->out[0]; ++i) {
        for (j = 0; j < layer->out[1]; ++j) {
            for (c = 0; c < layer->channels; ++c) {
                float found = 0;
                int count = 0;
                for (k = 0; k < layer->pool[0]; ++k) {
                    const int row = i * layer->pool_stride[0] - layer->pool_padding[0] + k;
                    if (row < 0 || row >= layer->size[0]) continue;
                    for (l = 0; l < layer->pool[1]; ++l) {
                        const int column = j * layer->pool_stride[1] - layer->pool_padding[1] + l;
                        float value;
                        if (column < 0 || column >= layer->size[1]) continue;
                        value = read((row * layer->size[1] + column) * layer->channels + c);
                        if (is_mean) found += value;
                        else if (!count || value > found) found = value;
                        ++count;
                    }
                }
                write((i * layer->out[1] + j) * layer->channels + c, is_mean ? found / (float)count : found);
            }
        }
    }
}

/*** blur_reals */
/* The sums of windows of 3x3 pixels, which weigh [1 2 1] x [1 2 1] / 16: of these the products are exact. */
static void blur_reals(const struct layer *layer, real_reader read, real_writer write) {
    static const float weights[9] = {0.0625f, 0.125f, 0.0625f, 0.125f, 0.25f, 0.125f, 0.0625f, 0.125f, 0.0625f};
    int i, j, k, l, c;
    for (i = 0; i < layer->out[0]; ++i) {
        for (j = 0; j < layer->out[1]; ++j) {
            for (c = 0; c < layer->channels; ++c) {
                float sum = 0;
                for (k = 0; k < 3; ++k) {
                    const int row = 2 * i - 1 + k;
                    if (row < 0 || row >= layer->size[0]) continue;
                    for (l = 0; l < 3; ++l) {
                        const int column = 2 * j - 1 + l;
                        if (column < 0 || column >= layer->size[1]) continue;
                        sum += read((row * layer->size[1] + column) * layer->channels + c) * weights[3 * k + l];
                    }
                }
                write((i * layer->out[1] + j) * layer->channels + c, sum);
            }
        }
    }
}

/*** to_float16 */
/* The nearest float of 16 bits, of two the even one. */
static float to_float16(float value) {
    uint32_t bits;
    float magnitude;
    memcpy(&bits, &value, sizeof bits);
    magnitude = value < 0 ? -value : value;
    if (magnitude < 0x1p-14f) {
        magnitude = (magnitude + 0.5f) - 0.5f;
        return value < 0 ? -magnitude : magnitude;
    }
    if (magnitude >= 65520.0f) return value < 0 ? -INFINITY : INFINITY;
    bits = (bits + 0xFFFu + (bits >> 13 & 1u)) & ~0x1FFFu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/*** to_bfloat16 */
/* The nearest bfloat16, of two the even one. */
static uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/*** from_bfloat16 */
static float from_bfloat16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
