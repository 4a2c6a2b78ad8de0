// The arena's parts as tensors that torch takes over: by DLPack, whose structures of version 0 stand here as its
// specification has them (github.com/dmlc/dlpack).
#include "arena.h"
#include "bindings.h"

namespace bnn {

namespace {

struct DLTensor {
    void* data;
    int32_t device_type, device_id;
    int32_t dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t* shape;
    int64_t* strides;
    uint64_t byte_offset;
};

struct DLManagedTensor {
    DLTensor tensor;
    void* context;
    void (*deleter)(DLManagedTensor*);
};

constexpr int32_t kCpu = 1;
constexpr char kName[] = "dltensor";  // of a capsule that nobody has taken over

struct Part : DLManagedTensor {
    Part(std::vector<int64_t> shape, uint8_t code, uint8_t bits, bool is_channels_last)
        : sizes(std::move(shape)), strides(sizes.size()) {
        const auto dimensions = static_cast<int32_t>(sizes.size());
        std::vector<int32_t> from_fastest;
        if (is_channels_last) from_fastest.push_back(1);
        for (int32_t i = dimensions - 1; i >= 0; --i) {
            if (!is_channels_last || i != 1) from_fastest.push_back(i);
        }
        int64_t elements = 1;
        for (const int32_t i : from_fastest) {
            strides[i] = elements;
            elements *= sizes[i];
        }
        void* const data = Arena::of_process().take(static_cast<size_t>(elements) * (bits / 8));
        tensor = {data, kCpu, 0, dimensions, code, bits, 1, sizes.data(), strides.data(), 0};
        context = nullptr;
        deleter = [](DLManagedTensor* managed) { delete static_cast<Part*>(managed); };
    }
    ~Part() { Arena::of_process().give_back(tensor.data); }

    std::vector<int64_t> sizes, strides;
};

void free_unused(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, kName)) return;
    delete static_cast<Part*>(static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kName)));
}

}  // namespace

void bind_memory(nb::module_& module) {
    nb::module_ arena = module.def_submodule("arena");
    arena.def("is_there", [] { return Arena::of_process().is_there(); });
    arena.def("trim", [] { Arena::of_process().trim(); });
    arena.def("held_bytes", [] { return Arena::of_process().held(); });
    // A capsule of DLPack: a contiguous or channels-last tensor, not yet written. `code` and `bits`: of its dtype there.
    arena.def("take", [](std::vector<int64_t> shape, uint8_t code, uint8_t bits, bool is_channels_last) {
        auto* const part = new Part(std::move(shape), code, bits, is_channels_last);
        return nb::steal<nb::object>(PyCapsule_New(static_cast<DLManagedTensor*>(part), kName, free_unused));
    });
}

}  // namespace bnn
