// The CPU backend as a program, for processors on which there is no Python to load it: reads a scene with upstream gradients,
// writes images and gradients (test_cross.py). Usage: render FROM TO
#include <cstdio>
#include <vector>

#include "types.h"

extern "C" {
void* dgr_create();
void dgr_destroy(void*);
int dgr_forward(void*, const dgr::Scene*, const dgr::Images*);
int dgr_backward(void*, const dgr::Scene*, const dgr::Images*, const dgr::Gradients*);
}

namespace {

std::FILE* open_or_exit(const char* path, const char* mode) {
    if (std::FILE* file = std::fopen(path, mode)) return file;
    std::perror(path);
    std::exit(2);
}

// Numbers in the file's order; none where the scene has none.
template <class T> std::vector<T> read(std::FILE* file) {
    int32_t size = 0;
    if (std::fread(&size, sizeof size, 1, file) != 1) std::exit(3);
    std::vector<T> v(static_cast<size_t>(size));
    if (std::fread(v.data(), sizeof(T), v.size(), file) != v.size()) std::exit(3);
    return v;
}

template <class T> void write(std::FILE* file, const std::vector<T>& v) {
    if (std::fwrite(v.data(), sizeof(T), v.size(), file) != v.size()) std::exit(4);
}

template <class T> T* pointer(std::vector<T>& v) { return v.empty() ? nullptr : v.data(); }

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 1;
    std::FILE* from = open_or_exit(argv[1], "rb");
    const std::vector<int32_t> sizes = read<int32_t>(from);
    std::vector<float> given[14];
    for (auto& v : given) v = read<float>(from);
    std::fclose(from);

    dgr::Scene s{};
    s.count = sizes[0];
    s.views = sizes[1];
    s.width = sizes[2];
    s.height = sizes[3];
    s.sh_degree = sizes[4];
    s.sh_coefficients = sizes[5];
    s.antialiasing = sizes[6];
    s.threads = 2;
    s.scale_modifier = 1.0f;
    s.near_plane = 0.2f;
    const float** const inputs[] = {&s.means,  &s.scales,      &s.rotations, &s.opacities, &s.shs,        &s.colors,
                                    &s.covariances, &s.viewmats, &s.focals,    &s.principals, &s.backgrounds};
    for (int i = 0; i < 11; ++i) *inputs[i] = pointer(given[i]);

    const size_t pixels = static_cast<size_t>(s.views) * s.width * s.height, pairs = static_cast<size_t>(s.views) * s.count;
    std::vector<float> rgb(3 * pixels), depth(pixels), alpha(pixels), means2d(2 * pairs), g_means2d(2 * pairs), gradients[10];
    std::vector<int32_t> radii(pairs), counts(s.views * dgr::FATES);
    for (int i = 0; i < 10; ++i) gradients[i].resize(given[i].size());
    const dgr::Images images{rgb.data(), depth.data(), alpha.data(), radii.data(), means2d.data(), counts.data()};
    dgr::Gradients into{};
    into.rgb = pointer(given[11]);
    into.depth = pointer(given[12]);
    into.alpha = pointer(given[13]);
    float** const wanted[] = {&into.means,  &into.scales,      &into.rotations, &into.opacities, &into.shs,
                              &into.colors, &into.covariances, &into.viewmats,  &into.focals,    &into.principals};
    for (int i = 0; i < 10; ++i) *wanted[i] = pointer(gradients[i]);
    into.means2d = g_means2d.data();
    void* workspace = dgr_create();
    if (dgr_forward(workspace, &s, &images) || dgr_backward(workspace, &s, &images, &into)) return 5;
    dgr_destroy(workspace);

    std::FILE* to = open_or_exit(argv[2], "wb");
    for (const auto* v : {&rgb, &depth, &alpha, &means2d}) write(to, *v);
    for (const auto* v : {&radii, &counts}) write(to, *v);
    for (const auto& v : gradients) write(to, v);
    write(to, g_means2d);
    return std::fclose(to) ? 4 : 0;
}
