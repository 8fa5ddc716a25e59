// Memory and threads that the system refuses on request: the functions that ask for them are replaced in the whole process.
#pragma once
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace fuzz {

// While one of these lives, the first `granted` requests are granted and all others refused.
class Scarce {
public:
    Scarce(std::atomic<int64_t>& left, int64_t granted) : left_(left) { left_ = granted; }
    Scarce(const Scarce&) = delete;
    Scarce& operator=(const Scarce&) = delete;
    ~Scarce() { left_ = PLENTY; }
    bool was_refused() const { return left_ < 0; }

    static constexpr int64_t PLENTY = INT64_MAX;

private:
    std::atomic<int64_t>& left_;
};

inline std::atomic<int64_t> memory{Scarce::PLENTY}, threads{Scarce::PLENTY};
inline bool grant(std::atomic<int64_t>& left) { return left.fetch_sub(1) > 0; }

}  // namespace fuzz

void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
    return fuzz::grant(fuzz::memory) ? std::malloc(bytes) : nullptr;
}
void* operator new(size_t bytes) {
    if (void* p = operator new(bytes, std::nothrow)) return p;
    throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
    *memory = fuzz::grant(fuzz::memory) ? std::aligned_alloc(alignment, bytes) : nullptr;
    return *memory ? 0 : ENOMEM;
}

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) noexcept {
    static const auto create = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
    return fuzz::grant(fuzz::threads) ? create(thread, attributes, start, argument) : EAGAIN;
}
