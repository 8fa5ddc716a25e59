// Drives random scenes through the CPU backend, forward and backward, and checks what holds for all of them, while a sanitizer
// that it is compiled with watches the memory. Usage: fuzz scenes|scarcity FIRST LAST, seeds
#include <sanitizer/common_interface_defs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <future>
#include <numeric>

#include "run.h"
#include "scarcity.h"

namespace fuzz {

uint64_t current_seed;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

bool all_below(const std::vector<float>& v, float limit) {
    return std::all_of(v.begin(), v.end(), [limit](float x) { return std::fabs(x) < limit; });
}

// Gaussians that no view may draw: one number that counts is not finite, or the rotation has no direction.
std::vector<bool> nonfinite_rows(const RandomScene& s) {
    std::vector<bool> bad(static_cast<size_t>(s.count));
    const auto mark = [&](const std::vector<float>& v, int stride, int columns) {
        if (v.empty()) return;
        for (int i = 0; i < s.count; ++i)
            for (int c = 0; c < columns; ++c) bad[i] = bad[i] || !std::isfinite(v[static_cast<size_t>(i) * stride + c]);
    };
    mark(s.means, 3, 3);
    mark(s.opacities, 1, 1);
    mark(s.scales, 3, 3);
    mark(s.colors, 3, 3);
    mark(s.covariances, 6, 6);
    mark(s.shs, s.coefficients * 3, s.used_coefficients() * 3);
    if (s.rotations.empty()) return bad;
    for (int i = 0; i < s.count; ++i) {
        const float* q = &s.rotations[static_cast<size_t>(i) * 4];
        bad[i] = bad[i] || !std::isnormal(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    }
    return bad;
}

void check_images(const RandomScene& s, const Result& r) {
    for (float a : r.alpha)
        if (!(a >= 0.0f && a <= 1.0f)) fail("alpha is " + std::to_string(a));
    for (float d : r.depth)
        if (!std::isfinite(d)) fail("depth is " + std::to_string(d));
    const size_t plane = static_cast<size_t>(s.width) * s.height;
    for (size_t i = 0; i < r.rgb.size(); ++i)
        if (!std::isfinite(r.rgb[i]) && std::isfinite(s.backgrounds[i / plane])) fail("rgb is " + std::to_string(r.rgb[i]));
}

// Returns which Gaussians some view draws.
std::vector<bool> check_culling(const RandomScene& s, const Result& r) {
    const auto nonfinite = nonfinite_rows(s);
    std::vector<bool> drawn(static_cast<size_t>(s.count));
    for (int view = 0; view < s.views; ++view) {
        const size_t first = static_cast<size_t>(view) * s.count;
        int visible = 0;
        for (size_t gaussian = 0; gaussian < drawn.size(); ++gaussian) {
            const int radius = r.radii[first + gaussian];
            if (radius < 0) fail("a radius is " + std::to_string(radius));
            if (radius && nonfinite[gaussian]) fail("a Gaussian that is not finite has a radius");
            if (radius) drawn[gaussian] = true;
            visible += radius > 0;
            for (size_t i : {2 * (first + gaussian), 2 * (first + gaussian) + 1}) {
                if (!std::isfinite(r.means2d[i])) fail("means2d is not finite");
                if (!radius && r.means2d[i] != 0) fail("means2d of a culled Gaussian is not 0");
                if (!radius && !r.g_means2d.empty() && r.g_means2d[i] != 0) fail("the gradient of a culled means2d is not 0");
            }
        }
        const int32_t* counts = &r.counts[static_cast<size_t>(view) * dgr::FATES];
        const auto bad = std::count(nonfinite.begin(), nonfinite.end(), true);
        if (counts[dgr::VISIBLE] != visible) fail(std::to_string(counts[dgr::VISIBLE]) + " count as visible");
        if (counts[dgr::NONFINITE] != bad) fail(std::to_string(counts[dgr::NONFINITE]) + " count as not finite");
        if (std::accumulate(counts, counts + dgr::FATES, 0) != s.count) fail("the counts do not add up");
    }
    return drawn;
}

void check_gradients(const RandomScene& s, const Result& r, const std::vector<bool>& drawn) {
    // Colours enter as factors: of absurd ones the gradients overflow in truth.
    const bool representable = all_below(s.backgrounds, 1e10f) && all_below(s.shs, 1e10f) && all_below(s.colors, 1e10f);
    for (const auto& [name, values] : r.floats()) {
        if (name.rfind("gradient", 0)) continue;
        const auto per_view = {&r.g_means2d, &r.g_viewmats, &r.g_focals, &r.g_principals};
        const bool per_gaussian = std::find(per_view.begin(), per_view.end(), values) == per_view.end();
        const size_t columns = s.count ? values->size() / s.count : 1;
        for (size_t i = 0; i < values->size(); ++i) {
            const float g = (*values)[i];
            if (per_gaussian && !drawn[i / columns] && g != 0) fail(name + " of a culled Gaussian is not 0");
            if (representable && !std::isfinite(g)) fail(name + " is " + std::to_string(g));
        }
    }
    const size_t columns = static_cast<size_t>(s.coefficients) * 3, used = static_cast<size_t>(s.used_coefficients()) * 3;
    for (size_t i = 0; i < r.g_shs.size(); ++i)
        if (i % columns >= used && r.g_shs[i] != 0) fail("gradient of a coefficient beyond the degree is not 0");
}

void check(const RandomScene& s, const Result& r) {
    for (const auto& [name, values] : r.floats())
        for (float x : *values)
            if (std::memcmp(&x, &UNTOUCHED, sizeof x) == 0) fail(name + " is not written");
    check_images(s, r);
    check_gradients(s, r, check_culling(s, r));
}

// Of every third scene also that neither the number of threads, nor a workspace that has served others, nor another call at the
// same time changes a byte.
void check_scene(const RandomScene& s, Workspace& used) {
    Workspace fresh;
    const Result result = expect_run(s, 1, fresh);
    check(s, result);
    if (current_seed % 3) return;
    const int threads = 1 + static_cast<int>(current_seed / 3 % 3);
    auto other = std::async(std::launch::async, [&] { return expect_run(s, threads, fresh); });
    if (!(expect_run(s, threads, used) == result)) fail("other threads or a used workspace give other bytes");
    if (!(other.get() == result)) fail("a call beside another gives other bytes");
}

// Whatever request for memory or a thread the system refuses first, nothing breaks, and the next call is as if it had not.
void check_scarcity(const RandomScene& s, Workspace& used) {
    const Result expected = expect_run(s, 1, used);
    bool refused = true;
    for (int64_t granted = 0; refused; ++granted) {
        Workspace fresh;
        Result result(s);
        int code;
        {
            const Scarce scarce(memory, granted);
            code = run(s, 3, fresh, result);
            refused = scarce.was_refused();
        }
        if (code != (refused ? dgr::OUT_OF_MEMORY : 0)) fail("a refusal returns error code " + std::to_string(code));
        if (!code && !(result == expected)) fail("refused no memory, a call gives other bytes");
        if (!(expect_run(s, 3, fresh) == expected)) fail("after a refusal the workspace gives other bytes");
    }
    // This process has its helpers by now; a forked child has none yet.
    for (int64_t granted = 0; granted <= 2; ++granted) {
        const pid_t child = fork();
        if (child == 0) {
            const Scarce scarce(threads, granted);
            Workspace fresh;
            Result result(s);
            _exit(run(s, 3, fresh, result) || !(result == expected));
        }
        int status = 1;
        if (waitpid(child, &status, 0) != child || status) fail("refused a thread, a forked child gives other bytes");
    }
}

}  // namespace fuzz

int main(int argc, char** argv) {
    using namespace fuzz;
    if (argc != 4) return 2;
    const auto check_one = std::string(argv[1]) == "scarcity" ? check_scarcity : check_scene;
    const uint64_t first = std::strtoull(argv[2], nullptr, 10), last = std::strtoull(argv[3], nullptr, 10);
    __sanitizer_set_death_callback([] { std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(current_seed)); });
    int failures = 0;
    Workspace used;
    for (current_seed = first; current_seed < last; ++current_seed) {
        try {
            check_one(RandomScene(current_seed), used);
        } catch (const std::runtime_error& error) {
            std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(current_seed), error.what());
            ++failures;
        }
    }
    return failures != 0;
}
