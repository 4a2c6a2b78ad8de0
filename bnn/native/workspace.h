// What kernels borrow of the arena while they run. No templates: see common.h.
#pragma once

#include <cstddef>

namespace bnn {

// Memory that is not cleared; null where the arena has none to spare.
void* take_workspace(size_t bytes);
void give_back_workspace(void* memory);

}  // namespace bnn
