// The Python module: all that Python may call. Functions that take long give the GIL back.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <mlx/version.h>

#include "matrix.h"
#include "pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace squish {
void bind_layers(nb::module_& m);
}

NB_MODULE(squish_native, m) {
    nb::module_::import_("mlx.core");  // its types are ours
    m.attr("mlx_version") = std::to_string(MLX_VERSION_MAJOR) + "." + std::to_string(MLX_VERSION_MINOR) + "." +
                            std::to_string(MLX_VERSION_PATCH);
    m.def("set_threads", &squish::set_threads, "count"_a);
    m.def("threads", &squish::threads);
    m.def("kernel", [] { return std::string(squish::kernels().name); });
    m.def("use_kernels", &squish::use_kernels, "name"_a);
    m.def("kernels", [] {
        std::vector<std::string> names;
        for (auto each = squish::runnable(); *each; each++) names.push_back((*each)->name);
        return names;
    });

    squish::bind_layers(m);
    nb::class_<squish::Matrix>(m, "Matrix")
        .def_prop_ro("rows", [](const squish::Matrix& self) { return self.layout.n; })
        .def_prop_ro("columns", [](const squish::Matrix& self) { return self.layout.k; })
        .def_prop_ro("nbytes", [](const squish::Matrix& self) { return self.layout.bytes(); })
        .def_ro("data", &squish::Matrix::data);
    m.def("pack", &squish::pack, "weight"_a, "scales"_a, "biases"_a.none(), "bits"_a, "group"_a, "mode"_a = "affine",
          "added"_a.none() = nb::none());
    m.def(
        "pack_super",
        [](const mlx::core::array& weight, const mlx::core::array& scales, const std::optional<mlx::core::array>& minima,
           const mlx::core::array& of_scales, const std::optional<mlx::core::array>& of_minima, int bits,
           const std::optional<mlx::core::array>& added) {
            return squish::pack_super(weight, {scales, minima, of_scales, of_minima}, bits, added);
        },
        "weight"_a, "scales"_a, "minima"_a.none(), "of_scales"_a, "of_minima"_a.none(), "bits"_a,
        "added"_a.none() = nb::none());
    m.def("pack_dense", &squish::pack_dense, "weight"_a, "added"_a.none() = nb::none());
    m.def("products", &squish::products, "x"_a, "matrices"_a, "exact"_a = false);
    m.def("experts", &squish::experts, "x"_a, "ids"_a, "matrices"_a, "exact"_a = false);
    m.def("lookup", &squish::lookup, "matrix"_a, "ids"_a);
}
