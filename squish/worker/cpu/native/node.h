// Owns how an operation becomes a node of MLX's graph on the CPU.
#pragma once

#include <mlx/allocator.h>
#include <mlx/array.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/primitives.h>
#include <mlx/utils.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pool.h"

namespace squish {

// What a node computes. It lives until its turn has come, which may be after the graph is gone.
struct Operation {
    explicit Operation(const char* name) : name(name) {}
    virtual ~Operation() = default;

    // When the node is queued: give each output its memory. Only here can an input be reused for an output.
    virtual void place(const std::vector<mlx::core::array>& inputs, std::vector<mlx::core::array>& outputs) const {
        for (auto& output : outputs) output.set_data(mlx::core::allocator::malloc(output.nbytes()));
    }
    // When its turn comes: inputs are computed, outputs are to be filled.
    virtual void work(const std::vector<mlx::core::array>& inputs, std::vector<mlx::core::array>& outputs) const = 0;

    const char* name;
};

class Node : public mlx::core::Primitive {
   public:
    explicit Node(std::shared_ptr<const Operation> operation)
        : Primitive(mlx::core::default_stream(mlx::core::Device::cpu)), operation_(std::move(operation)) {}

    void eval_cpu(const std::vector<mlx::core::array>& inputs, std::vector<mlx::core::array>& outputs) override {
        operation_->place(inputs, outputs);
        auto& encoder = mlx::core::cpu::get_command_encoder(stream());
        for (auto& input : inputs) encoder.set_input_array(input);
        for (auto& output : outputs) encoder.set_output_array(output);
        encoder.dispatch([operation = operation_, from = weak(inputs), to = weak(outputs)]() mutable {
            operation->work(from, to);
        });
    }
    void eval_gpu(const std::vector<mlx::core::array>&, std::vector<mlx::core::array>&) override {
        throw std::runtime_error(std::string(operation_->name) + " runs on the CPU only");
    }
    const char* name() const override { return operation_->name; }

   private:
    static std::vector<mlx::core::array> weak(const std::vector<mlx::core::array>& arrays) {
        std::vector<mlx::core::array> copies;
        copies.reserve(arrays.size());
        for (auto& array : arrays) copies.push_back(mlx::core::array::unsafe_weak_copy(array));
        return copies;
    }

    std::shared_ptr<const Operation> operation_;
};

constexpr int64_t kWorthAThread = 1 << 15;  // numbers from which on another thread is worth waking

// Rows of `size` numbers in runs that are worth taking: work(first, last).
template <class F>
void in_runs(int64_t rows, int64_t size, F&& work) {
    const int64_t run = rows * size < 2 * kWorthAThread ? rows : std::max<int64_t>(1, kWorthAThread / size);
    if (run >= rows) return rows ? work(int64_t{0}, rows) : void();
    parallel(static_cast<int>((rows + run - 1) / run), [&](int chunk) {
        work(chunk * run, std::min(rows, (chunk + 1) * run));
    });
}

}  // namespace squish
