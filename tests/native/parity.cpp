// The products of each instruction set that is built here and that this CPU has, against plain loops: odd sizes, padding,
// strides, groups, and sums of the largest bytes that there are. Prints the sets; ends with 1 at the first difference.
#include <sys/auxv.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels.h"

namespace {

using bnn::Kernels;
using bnn::Window;
using Bytes = std::vector<uint8_t>;

std::mt19937 random_words(1);

int64_t below(int64_t n) { return static_cast<int64_t>(random_words() % static_cast<uint32_t>(n)); }
int64_t packed(int64_t bits) { return (bits + 7) / 8; }
uint32_t hashed(uint32_t word) {  // lowbias32, see random.h
    word = (word ^ word >> 16) * 0x7FEB352D;
    word = (word ^ word >> 15) * 0x846CA68B;
    return word ^ word >> 16;
}
int sign_at(const uint8_t* bits, int64_t i) { return bits[i / 8] >> i % 8 & 1 ? 1 : -1; }

Bytes some_bits(int64_t rows, int64_t n) {
    Bytes bits(static_cast<size_t>(rows * packed(n)));
    for (auto& byte : bits) byte = static_cast<uint8_t>(random_words() >> 8);
    if (n % 8) {  // those past a row's end are clear
        for (int64_t row = 1; row <= rows; ++row) bits[static_cast<size_t>(row * packed(n) - 1)] &= (1 << n % 8) - 1;
    }
    return bits;
}

struct Set {
    const char* name;
    const Kernels* kernels;
};

std::vector<Set> sets_here() {
    std::vector<Set> sets = {{"generic", &bnn::generic::kernels}, {"neon", &bnn::neon::kernels}};
    constexpr unsigned long kDotProducts = 1 << 20;  // HWCAP_ASIMDDP
    if (getauxval(AT_HWCAP) & kDotProducts) sets.push_back({"neon-dot", &bnn::neon_dot::kernels});
    return sets;
}

template <class T>
void require_equal(const std::string& what, const Set& set, const std::vector<T>& found, const std::vector<T>& right) {
    for (size_t i = 0; i < right.size(); ++i) {
        if (std::memcmp(&found[i], &right[i], sizeof(T)) != 0) {
            std::printf("%s: %s differs at %zu: %g, not %g\n", what.c_str(), set.name, i,
                        static_cast<double>(found[i]), static_cast<double>(right[i]));
            std::exit(1);
        }
    }
}

void check_linear(const std::vector<Set>& sets, int64_t rows, int64_t outputs, int64_t features) {
    const Bytes x = some_bits(rows, features), weight = some_bits(outputs, features);
    std::vector<float> right;
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < outputs; ++o) {
            int64_t sum = 0;
            for (int64_t k = 0; k < features; ++k) {
                sum += sign_at(&x[r * packed(features)], k) * sign_at(&weight[o * packed(features)], k);
            }
            right.push_back(static_cast<float>(sum));
        }
    }
    for (const Set& set : sets) {
        std::vector<float> out(right.size());
        set.kernels->linear(x.data(), weight.data(), out.data(), rows, outputs, features, 1);
        require_equal("linear of " + std::to_string(features), set, out, right);
    }
}

// The bits of bfloat16, rounded to even.
std::vector<uint16_t> rounded(const std::vector<float>& values) {
    std::vector<uint16_t> halves;
    for (const float value : values) {
        uint32_t word;
        std::memcpy(&word, &value, 4);
        halves.push_back(static_cast<uint16_t>((word + 0x7FFF + (word >> 16 & 1)) >> 16));
    }
    return halves;
}

Window some_window(int64_t channels) {
    for (;;) {
        Window window{};
        window.images = 1 + below(3);
        window.channels = channels;
        bool fits = true;
        for (int i = 0; i < 2; ++i) {
            window.size[i] = 1 + below(9);
            window.kernel[i] = 1 + below(3);
            window.stride[i] = 1 + below(2);
            window.padding[i] = below(3);
            window.dilation[i] = 1 + below(2);
            const int64_t left = window.size[i] + 2 * window.padding[i] - window.dilation[i] * (window.kernel[i] - 1) - 1;
            fits = fits && left >= 0;
            window.out_size[i] = left / window.stride[i] + 1;
        }
        if (fits) return window;
    }
}

// Gradients are drawn within ±range, or are all `constant`.
void check_convolution(const std::vector<Set>& sets, const Window& w, int64_t outputs, int64_t groups, int range,
                       int constant = 0) {
    const int64_t of_group = w.channels / groups, out_of_group = outputs / groups, taps = w.kernel[0] * w.kernel[1];
    const int64_t row = taps * of_group, in_row = w.size[0] * w.size[1] * w.channels;
    const int64_t pixels = w.out_size[0] * w.out_size[1];
    const Bytes x = some_bits(w.images, in_row), weight = some_bits(outputs, row);
    std::vector<int8_t> grad(static_cast<size_t>(w.images * pixels * outputs));
    for (auto& q : grad) q = static_cast<int8_t>(constant ? constant : below(2 * range + 1) - range);
    std::vector<int64_t> forward(grad.size()), of_input(static_cast<size_t>(w.images * in_row)),
        of_weight(static_cast<size_t>(outputs * row));
    for (int64_t at = 0; at < static_cast<int64_t>(grad.size()); ++at) {
        const int64_t o = at % outputs, pixel = at / outputs % pixels, image = at / outputs / pixels;
        for (int64_t e = 0; e < row; ++e) {
            const int64_t tap = e / of_group, i = tap / w.kernel[1], j = tap % w.kernel[1];
            const int64_t y = pixel / w.out_size[1] * w.stride[0] - w.padding[0] + i * w.dilation[0];
            const int64_t z = pixel % w.out_size[1] * w.stride[1] - w.padding[1] + j * w.dilation[1];
            if (y < 0 || z < 0 || y >= w.size[0] || z >= w.size[1]) continue;
            const int64_t from = (y * w.size[1] + z) * w.channels + o / out_of_group * of_group + e % of_group;
            const int a = sign_at(&x[image * packed(in_row)], from), b = sign_at(&weight[o * packed(row)], e);
            forward[at] += a * b;
            of_input[image * in_row + from] += grad[at] * b;
            of_weight[o * row + e] += grad[at] * a;
        }
    }
    const auto floats = [](const std::vector<int64_t>& sums, float scale) {
        std::vector<float> values;
        for (const int64_t sum : sums) values.push_back(static_cast<float>(sum) * scale);
        return values;
    };
    Bytes signs;
    for (const Set& set : sets) {
        std::vector<float> y(forward.size()), of_x(of_input.size()), of_w(of_weight.size());
        Bytes packed_signs(static_cast<size_t>(outputs * packed(row)));
        set.kernels->conv2d(x.data(), weight.data(), y.data(), w, outputs, groups, bnn::kFloat32, 1);
        require_equal("conv2d", set, y, floats(forward, 1));
        const bnn::Slopes none{};
        set.kernels->conv2d_backward_input(grad.data(), 0.25f, weight.data(), of_x.data(), w, outputs, groups, 4, none, 1);
        require_equal("conv2d_backward_input", set, of_x, floats(of_input, 0.25f));
        set.kernels->conv2d_backward_weight(grad.data(), 0.25f, x.data(), of_w.data(), w, outputs, groups, 4, 1);
        require_equal("conv2d_backward_weight", set, of_w, floats(of_weight, 0.25f));
        std::vector<uint16_t> halves(of_weight.size());
        set.kernels->conv2d_backward_weight(grad.data(), 0.25f, x.data(), halves.data(), w, outputs, groups, 2, 1);
        require_equal("conv2d_backward_weight of bfloat16", set, halves, rounded(floats(of_weight, 0.25f)));
        set.kernels->conv2d_backward_weight_sign(grad.data(), x.data(), packed_signs.data(), w, outputs, groups, 7, 0, 1);
        if (signs.empty()) signs = packed_signs;
        require_equal("conv2d_backward_weight_sign", set, packed_signs, signs);
    }
}

// Steps by values and the squares of their rows, against the formulas of bnn/ops/steps.py.
void check_steps(const std::vector<Set>& sets, int64_t rows, int64_t n, float bound, int32_t beyond) {
    constexpr uint32_t kKey = 0x1234567;
    const auto count = static_cast<size_t>(rows * n);
    std::vector<int8_t> codes(count);
    std::vector<uint16_t> gradient(count);  // bits of bfloat16
    std::vector<float> values(count), rates(static_cast<size_t>(rows));
    for (size_t i = 0; i < count; ++i) {
        codes[i] = static_cast<int8_t>(below(256) - 128);
        const float drawn = static_cast<float>(below(2001) - 1000) / 256 * std::ldexp(1.0f, static_cast<int>(below(5)));
        uint32_t word;
        std::memcpy(&word, &drawn, 4);
        gradient[i] = static_cast<uint16_t>(word >> 16);
        word &= 0xFFFF0000;
        std::memcpy(&values[i], &word, 4);
    }
    for (auto& rate : rates) rate = static_cast<float>(below(1000)) / 300;
    std::vector<double> squares;
    std::vector<int8_t> right = codes;
    for (int64_t row = 0; row < rows; ++row) {
        float largest = 0;
        for (int64_t k = 0; k < n; ++k) largest = std::fmax(largest, std::fabs(values[row * n + k]));
        int exponent = -100;
        if (largest > 0) std::frexp(largest, &exponent);
        double sum = 0;
        for (int64_t i = row * n; i < (row + 1) * n; ++i) {
            const double whole = std::floor(std::ldexp(std::fabs(values[i]), 15 - exponent) + 0.5f);
            sum += whole * whole;
            const auto index = static_cast<uint32_t>(i);
            const uint32_t random = hashed(index / 2 * 0x9E3779B9 ^ kKey) >> index % 2 * 16 & 0xFFFF;
            const float move = std::fmin(std::fmax(values[i] * rates[row], -bound), bound);
            const float shift = (static_cast<float>(random) + 0.5f) * 0x1p-16f;
            const int code = codes[i], moved = code - static_cast<int>(std::floor(move + shift));
            const int away = moved < 0 ? std::min(moved, -beyond) : std::max(moved, beyond);
            right[i] = static_cast<int8_t>(std::min(127, std::max(-128, (moved < 0) != (code < 0) ? away : moved)));
        }
        squares.push_back(std::ldexp(sum, 2 * (exponent - 15)) / static_cast<double>(n));
    }
    for (const Set& set : sets) {
        std::vector<double> found(squares.size());
        set.kernels->row_squares(gradient.data(), found.data(), rows, n, 1);
        require_equal("row_squares of " + std::to_string(n), set, found, squares);
        std::vector<int8_t> stepped = codes;
        set.kernels->step_by_values(stepped.data(), gradient.data(), rates.data(), rows, n, bound, beyond, kKey, 1);
        require_equal("step_by_values of " + std::to_string(n), set, stepped, right);
    }
}

void check_means(const std::vector<Set>& sets, int64_t rows, int64_t columns, int64_t channels, int64_t height, int64_t width) {
    const int64_t pitch = columns * width * channels, size = rows * height * pitch;
    std::vector<float> x(size), base(size), means, spread(size);
    for (int64_t i = 0; i < size; ++i) x[i] = static_cast<float>(below(2001)) - 1000, base[i] = static_cast<float>(below(99));
    const auto values = static_cast<float>(height * width);
    for (int64_t window = 0; window < rows * columns; ++window) {
        for (int64_t c = 0; c < channels; ++c) {
            const int64_t first = window / columns * height * pitch + window % columns * width * channels + c;
            float sum = 0;
            for (int64_t i = 0; i < height; ++i) {
                for (int64_t j = 0; j < width; ++j) sum += x[first + i * pitch + j * channels];
            }
            means.push_back(sum / values);
            for (int64_t i = 0; i < height; ++i) {
                for (int64_t j = 0; j < width; ++j) {
                    const int64_t at = first + i * pitch + j * channels;
                    spread[at] = base[at] + means.back() / values;
                }
            }
        }
    }
    for (const Set& set : sets) {
        std::vector<float> found(means.size()), of_x(size);
        set.kernels->window_means(x.data(), found.data(), rows, columns, channels, height, width, bnn::kFloat32, 1);
        require_equal("window_means", set, found, means);
        set.kernels->window_means_backward(means.data(), base.data(), of_x.data(), rows, columns, channels, height, width,
                                           bnn::kFloat32, 1);
        require_equal("window_means_backward", set, of_x, spread);
    }
}

// Sums of real products, each term added in one rounding, and what is formed of them for a norm, beside the first set's.
void check_reals(const std::vector<Set>& sets, const Window& w, int64_t outputs) {
    const int64_t elements = w.images * w.size[0] * w.size[1] * w.channels, patch = w.kernel[0] * w.kernel[1] * w.channels;
    const int64_t pixels = w.images * w.out_size[0] * w.out_size[1];
    std::vector<float> x(elements), weight(outputs * patch), right(pixels * outputs);
    const auto some = [] { return std::ldexp(static_cast<float>(below(1 << 24)) - (1 << 23), -static_cast<int>(below(30))); };
    for (float& value : x) value = some();
    for (float& value : weight) value = some();
    for (int64_t p = 0; p < pixels; ++p) {
        const int64_t image = p / w.out_size[1] / w.out_size[0];
        const int64_t top = p / w.out_size[1] % w.out_size[0] * w.stride[0] - w.padding[0];
        const int64_t left = p % w.out_size[1] * w.stride[1] - w.padding[1];
        for (int64_t o = 0; o < outputs; ++o) {
            float& sum = right[p * outputs + o];
            for (int64_t k = 0; k < patch; ++k) {
                const int64_t tap = k / w.channels, row = top + tap / w.kernel[1] * w.dilation[0];
                const int64_t column = left + tap % w.kernel[1] * w.dilation[1];
                if (row < 0 || row >= w.size[0] || column < 0 || column >= w.size[1]) continue;
                const int64_t at = ((image * w.size[0] + row) * w.size[1] + column) * w.channels + k % w.channels;
                sum = std::fmaf(x[at], weight[o * patch + k], sum);
            }
        }
    }
    std::vector<float> moments(2 * outputs, 0.5f), first;
    for (const Set& set : sets) {
        std::vector<float> found(right.size()), results(elements + outputs * patch + 3 * outputs);
        set.kernels->float_conv2d(x.data(), weight.data(), found.data(), w, outputs, bnn::kFloat32, bnn::kFloat32, 1);
        require_equal("float_conv2d", set, found, right);
        if (outputs % 8) continue;
        const float slope = 1;
        std::vector<float> small(x.size());  // whose products float16 holds
        for (size_t i = 0; i < small.size(); ++i) small[i] = std::ldexp(x[i], -30);
        set.kernels->normed_conv2d_backward(right.data(), nullptr, &slope, 0, small.data(), weight.data(), moments.data(),
                                            nullptr, nullptr, 1e-5, results.data(),
                                            results.data() + elements, results.data() + elements + outputs * patch, w,
                                            outputs, bnn::kFloat32, bnn::kFloat32, 1);
        if (first.empty()) first = results;
        require_equal("normed_conv2d_backward", set, results, first);
    }
}

}  // namespace

int main() {
    const std::vector<Set> sets = sets_here();
    for (int i = 0; i < 60; ++i) check_linear(sets, 1 + below(20), 1 + below(40), 1 + below(i % 4 ? 200 : 5000));
    for (int i = 0; i < 120; ++i) {
        const int64_t groups = i % 3 ? 1 : 1 + below(2), outputs = groups * (1 + below(50));
        check_convolution(sets, some_window(groups * (1 + below(i % 5 ? 40 : 90))), outputs, groups, i % 2 ? 15 : 127);
    }
    for (int i = 0; i < 60; ++i) check_reals(sets, some_window(1 + below(6)), i % 2 ? 8 * (1 + below(6)) : 1 + below(50));
    for (int i = 0; i < 10; ++i) {
        const int64_t height = 1 + below(20), width = 1 + below(20);
        check_reals(sets, {2, 1 + below(40), {height, width}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {height, width}}, 8 * (1 + below(9)));
    }
    for (int i = 0; i < 30; ++i) check_means(sets, 1 + below(4), 1 + below(5), 1 + below(40), 1 + below(4), 1 + below(4));
    for (int i = 0; i < 60; ++i) {
        const auto bound = static_cast<float>(i % 4 ? below(300) : 256);
        check_steps(sets, 1 + below(6), 1 + below(i % 3 ? 40 : 700), bound, static_cast<int32_t>(below(128)));
    }
    // A row of pixels makes weights' sums long, and outputs do so for inputs'.
    for (const int constant : {-127, 127, -15, 15}) {
        check_convolution(sets, {3, 33, {1, 700}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {1, 700}}, 9, 1, 127, constant);
        check_convolution(sets, {2, 33, {1, 2}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, {1, 2}}, 3000, 1, 127, constant);
    }
    for (const Set& set : sets) std::printf("%s ", set.name);
    std::printf("are right\n");
    return 0;
}
