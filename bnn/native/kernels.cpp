// Compiled once for each instruction set: CMakeLists.txt sets its compiler flags, BNN_ISA (the name of its namespace)
// and the choice of a definition in vector.h.
#include "kernels.h"

#include "conv.h"
#include "pool.h"

namespace bnn::BNN_ISA {

const Kernels kernels = {pack, unpack, linear, conv2d, max_pool2d, max_pool2d_backward};

}  // namespace bnn::BNN_ISA
