// The functions of libcuda that cuda_driver.py calls: they write down what they are given, and fail on request.
#include <cstddef>
#include <cstring>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::ostringstream calls;
std::string report, failing_function;
int failing_code = 0;
size_t frame_bytes = 0;
std::vector<unsigned char> frame;
thread_local std::vector<size_t> contexts;  // the stack that cuCtxPushCurrent pushes to

int result(const char* function) { return failing_function == function ? failing_code : 0; }
size_t number(const void* handle) { return reinterpret_cast<size_t>(handle); }
void* handle(size_t value) { return reinterpret_cast<void*>(value); }

const char* kernel_handle(const char* name) {
    static std::set<std::string> names;
    return names.insert(name).first->c_str();
}

}  // namespace

extern "C" {

void fake_reset(const char* function, int code, size_t bytes) {
    calls.str("");
    failing_function = function;
    failing_code = code;
    frame_bytes = bytes;
}
const char* fake_calls() { return (report = calls.str()).c_str(); }
const unsigned char* fake_frame() { return frame.data(); }
size_t fake_depth() { return contexts.size(); }

int cuInit(unsigned flags) {
    calls << "init " << flags << "\n";
    return result("cuInit");
}

int cuGetErrorName(int code, const char** name) {
    *name = code == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : nullptr;
    return code == 209 ? 0 : 1;
}

int cuGetErrorString(int code, const char** text) {
    *text = code == 209 ? "no kernel image is available for execution on the device" : nullptr;
    return code == 209 ? 0 : 1;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = 10 + ordinal;
    return result("cuDeviceGet");
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = handle(0x700000000000 + device);  // wider than an int
    return result("cuDevicePrimaryCtxRetain");
}

int cuCtxPushCurrent_v2(void* context) {
    if (result("cuCtxPushCurrent_v2") == 0) contexts.push_back(number(context));
    return result("cuCtxPushCurrent_v2");
}

int cuCtxPopCurrent_v2(void** context) {
    *context = handle(contexts.back());
    contexts.pop_back();
    return 0;
}

int cuModuleLoadData(void** module, const void* image) {
    calls << "module " << std::string(static_cast<const char*>(image), 4) << " in " << contexts.back() - 0x700000000000 << "\n";
    *module = handle(0x600000000000);
    return result("cuModuleLoadData");
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    calls << "function " << name << " of " << (number(module) == 0x600000000000) << "\n";
    *function = const_cast<char*>(kernel_handle(name));
    return result("cuModuleGetFunction");
}

#ifndef OLD_DRIVER
int cuFuncLoad(void* function) {
    calls << "load " << static_cast<const char*>(function) << "\n";
    return result("cuFuncLoad");
}
#endif

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void* stream, void** parameters, void** extra) {
    calls << "launch " << static_cast<const char*>(function) << " " << grid_x << "x" << grid_y << "x" << grid_z << " of " << block_x
          << "x" << block_y << "x" << block_z << " shared " << shared << " stream " << std::hex << number(stream) << std::dec
          << " extra " << number(extra) << " in " << (contexts.empty() ? 0 : contexts.back() - 0x700000000000) << "\n";
    if (contexts.empty()) return 201;
    const auto* bytes = static_cast<const unsigned char*>(parameters[0]);
    frame.assign(bytes, bytes + frame_bytes);
    return result("cuLaunchKernel");
}

}  // extern "C"
