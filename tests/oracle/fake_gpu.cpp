// A GPU that is not there: a ggml backend that calls itself CUDA, has the memory it is told to have and never
// computes. llama.cpp's own loader and graph reserve run on it with `no_alloc`, so that a closed formula can be
// compared with the engine byte for byte on a machine without a GPU.
//
// GLMPLAN_FAKE_GPU_MIB="16380:15780,24564:23964" gives total:free of each device in MiB.
//
// The rules copied from ggml-cuda.cu are those that decide sizes: 128-byte alignment, rows of quantised tensors
// padded to 512 elements, the f16 copy that flash attention makes of a cache of another type, and the batch of 32
// from which an operation is worth copying its weights for.

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "ggml.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr size_t  k_mib           = 1024 * 1024;
constexpr size_t  k_alignment     = 128;
constexpr int64_t k_row_padding   = 512;
constexpr int64_t k_offload_batch = 32;

struct fake_device {
    std::string              name;
    size_t                   total = 0;
    size_t                   free  = 0;
    ggml_backend_buffer_type device_buffers{};
    ggml_backend_buffer_type host_buffers{};
    ggml_backend_device      device{};
};

std::vector<std::unique_ptr<fake_device>> devices;
ggml_backend_reg                          registry{};
ggml_guid                                 guid = { 0x67, 0x6c, 0x6d, 0x70, 0x6c, 0x61, 0x6e };

fake_device & of(ggml_backend_dev_t dev) { return *static_cast<fake_device *>(dev->context); }
fake_device & of(ggml_backend_buffer_type_t buft) { return *static_cast<fake_device *>(buft->context); }

// buffers: sizes only

ggml_backend_buffer_i buffer_interface() {
    ggml_backend_buffer_i i{};
    i.free_buffer   = [](ggml_backend_buffer_t) {};
    i.get_base      = [](ggml_backend_buffer_t) { return reinterpret_cast<void *>(uintptr_t{ 0x1000 }); };
    i.init_tensor   = [](ggml_backend_buffer_t, ggml_tensor *) { return GGML_STATUS_SUCCESS; };
    i.memset_tensor = [](ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t, size_t) {};
    i.set_tensor    = [](ggml_backend_buffer_t, ggml_tensor *, const void *, size_t, size_t) {};
    i.get_tensor    = [](ggml_backend_buffer_t, const ggml_tensor *, void *, size_t, size_t) {};
    i.cpy_tensor    = [](ggml_backend_buffer_t, const ggml_tensor *, ggml_tensor *) { return true; };
    i.clear         = [](ggml_backend_buffer_t, uint8_t) {};
    return i;
}

// What flash attention reserves behind its result when the cache is not f16 (V is a view of K under MLA).
size_t converted_cache(const ggml_tensor * op, size_t size) {
    const ggml_tensor * k = op->src[1];
    const ggml_tensor * v = op->src[2];
    if (k != nullptr && k->type != GGML_TYPE_F16) {
        size = GGML_PAD(size, k_alignment) + ggml_nelements(k) * sizeof(ggml_fp16_t);
    }
    const bool shared = v != nullptr && v->view_src != nullptr &&
        (v->view_src == k || (v->view_src == k->view_src && v->view_offs == k->view_offs));
    if (v != nullptr && v->type != GGML_TYPE_F16 && !shared) {
        size = GGML_PAD(size, k_alignment) + ggml_nelements(v) * sizeof(ggml_fp16_t);
    }
    return size;
}

size_t allocated_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    size_t size = ggml_nbytes(tensor);
    if (tensor->op == GGML_OP_FLASH_ATTN_EXT) {
        size = converted_cache(tensor, size);
    }
    const int64_t rest = tensor->ne[0] % k_row_padding;
    if (ggml_is_quantized(tensor->type) && rest != 0) {
        size += ggml_row_size(tensor->type, k_row_padding - rest);
    }
    return size;
}

void set_up_buffer_types(fake_device & d) {
    auto & own           = d.device_buffers;
    own.device           = &d.device;
    own.context          = &d;
    own.iface.get_name   = [](ggml_backend_buffer_type_t b) { return of(b).name.c_str(); };
    own.iface.get_alignment  = [](ggml_backend_buffer_type_t) { return k_alignment; };
    own.iface.get_alloc_size = allocated_size;
    own.iface.is_host        = [](ggml_backend_buffer_type_t) { return false; };
    own.iface.alloc_buffer   = [](ggml_backend_buffer_type_t b, size_t size) {
        return ggml_backend_buffer_init(b, buffer_interface(), nullptr, size);
    };

    // Pinned host memory: the CPU's own buffers under another name.
    auto & host         = d.host_buffers;
    host.device         = &d.device;
    host.context        = &d;
    host.iface          = ggml_backend_cpu_buffer_type()->iface;
    host.iface.get_name = [](ggml_backend_buffer_type_t) { return "CUDA_Host"; };
    host.iface.alloc_buffer = [](ggml_backend_buffer_type_t b, size_t size) {
        ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
        if (buffer != nullptr) {
            buffer->buft = b;
        }
        return buffer;
    };
}

// the backend: accepts every graph, computes none

bool worth_offloading(ggml_backend_dev_t, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_GET_ROWS: return false;
        case GGML_OP_MUL_MAT: return op->ne[1] >= k_offload_batch;
        case GGML_OP_MUL_MAT_ID:
        case GGML_OP_ROPE: return op->ne[2] >= k_offload_batch;
        default: return ggml_nrows(op) >= k_offload_batch;
    }
}

ggml_backend_t new_backend(ggml_backend_dev_t dev, const char *) {
    auto * backend                = new ggml_backend{};
    backend->guid                 = &guid;
    backend->device               = dev;
    backend->context              = dev->context;
    backend->iface.get_name       = [](ggml_backend_t b) { return of(b->device).name.c_str(); };
    backend->iface.free           = [](ggml_backend_t b) { delete b; };
    backend->iface.synchronize    = [](ggml_backend_t) {};
    backend->iface.event_record   = [](ggml_backend_t, ggml_backend_event_t) {};
    backend->iface.event_wait     = [](ggml_backend_t, ggml_backend_event_t) {};
    backend->iface.graph_compute  = [](ggml_backend_t, auto...) { return GGML_STATUS_FAILED; };
    return backend;
}

void describe(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props                  = {};
    props->name             = of(dev).name.c_str();
    props->description      = "a GPU that is not there";
    props->type             = GGML_BACKEND_DEVICE_TYPE_GPU;
    props->memory_free      = of(dev).free;
    props->memory_total     = of(dev).total;
    props->caps.async       = true;
    props->caps.host_buffer = true;
    props->caps.events      = true;
}

void set_up_device(fake_device & d) {
    auto & i          = d.device.iface;
    d.device.reg      = &registry;
    d.device.context  = &d;
    i.get_name        = [](ggml_backend_dev_t dev) { return of(dev).name.c_str(); };
    i.get_description = [](ggml_backend_dev_t) { return "a GPU that is not there"; };
    i.get_type        = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    i.get_memory      = [](ggml_backend_dev_t dev, size_t * free, size_t * total) {
        *free  = of(dev).free;
        *total = of(dev).total;
    };
    i.get_props            = describe;
    i.init_backend         = new_backend;
    i.get_buffer_type      = [](ggml_backend_dev_t dev) { return &of(dev).device_buffers; };
    i.get_host_buffer_type = [](ggml_backend_dev_t) { return &devices.front()->host_buffers; };
    i.supports_op          = [](ggml_backend_dev_t, const ggml_tensor *) { return true; };
    i.supports_buft        = [](ggml_backend_dev_t dev, ggml_backend_buffer_type_t b) { return b == &of(dev).device_buffers; };
    i.offload_op           = worth_offloading;
    i.event_new            = [](ggml_backend_dev_t dev) {
        auto * event    = new ggml_backend_event{};
        event->device   = dev;
        return event;
    };
    i.event_free        = [](ggml_backend_dev_t, ggml_backend_event_t event) { delete event; };
    i.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
}

void read_devices() {
    const char *      given = std::getenv("GLMPLAN_FAKE_GPU_MIB");
    std::stringstream list(given != nullptr ? given : "24564:23964");
    for (std::string entry; std::getline(list, entry, ',');) {
        auto         device = std::make_unique<fake_device>();
        const size_t colon  = entry.find(':');
        device->name        = "CUDA" + std::to_string(devices.size());
        device->total       = static_cast<size_t>(std::stod(entry) * k_mib);
        device->free        = colon == std::string::npos ? device->total
                                                         : static_cast<size_t>(std::stod(entry.substr(colon + 1)) * k_mib);
        set_up_device(*device);
        set_up_buffer_types(*device);
        devices.push_back(std::move(device));
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
    if (!devices.empty()) {
        return nullptr;  // ggml_backend_load_all() may call again
    }
    read_devices();
    registry.api_version              = GGML_BACKEND_API_VERSION;
    registry.iface.get_name           = [](ggml_backend_reg_t) { return "CUDA"; };
    registry.iface.get_device_count   = [](ggml_backend_reg_t) { return devices.size(); };
    registry.iface.get_device         = [](ggml_backend_reg_t, size_t index) { return &devices[index]->device; };
    registry.iface.get_proc_address   = [](ggml_backend_reg_t, const char *) -> void * { return nullptr; };
    return &registry;
}
