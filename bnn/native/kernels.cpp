// Compiled once for each instruction set: CMakeLists.txt sets its compiler flags, BNN_ISA (the name of its namespace)
// and the choice of a definition in vector.h.
#include "kernels.h"

#include "adam.h"
#include "average.h"
#include "batch_norm.h"
#include "choice.h"
#include "conv.h"
#include "input_gradient.h"
#include "norm.h"
#include "normed_conv.h"
#include "pool.h"
#include "pulse.h"
#include "quantize.h"
#include "real.h"
#include "sign.h"
#include "sign_codes.h"
#include "step.h"
#include "ternary.h"

namespace bnn::BNN_ISA {

const Kernels kernels = {pack, unpack, linear, conv2d, real_conv2d, real_conv2d_backward_weight,
                         float_conv2d, float_conv2d_backward_weight, normed_conv2d_backward,
                         max_pool2d, max_pool2d_backward,
                         largest_magnitude, quantize_integers, conv2d_backward_input, conv2d_backward_weight,
                         conv2d_backward_weight_ternary, conv2d_backward_weight_sign,
                         norm_sign, norm_sign_backward, max_pool2d_choices,
                         max_pool2d_scatter, window_means, window_means_backward, conv2d_max_pool2d, sign_window, mask, step_by_signs, row_squares,
                         step_by_values, adam_by_signs, adam_by_values,
                         batch_statistics, row_moments, norm_clamp, sign_codes, norm_gradient_terms,
                         row_norm_gradients, norm_gradient, norm_gradient_integers, pass_slopes, pulse_pairs};

}  // namespace bnn::BNN_ISA
