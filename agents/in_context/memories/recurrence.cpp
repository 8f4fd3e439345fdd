// Forward and backward passes of a GRU and an LSTM over whole trials.
//
// Trials are processed in blocks of ROWS, each from its first step to its last, so that a block's gates stay in a core's
// cache. What the backward pass needs is saved in the order of the loops, [block][step][row][...], so that a chunk of
// steps is one matrix with consecutive rows. Missing rows of the last block are zero and have no effect.
//
// A 1 is appended to a step's inputs, so the last row of the input weights is the bias.

#include "vectors.h"

// Arguments of both passes over B trials of L steps, with D inputs and H units, H a multiple of WIDTH. torch's tensors
// are [B, ...]; those saved for the backward pass are in blocks, and only the size of their last axis is given.
struct Trials {
    int64_t trials, steps, entries, size, padded;  // padded: P, D rounded up to a multiple of WIDTH
    const float *inputs, *hidden, *cell;           // [B, L, D], [B, H]
    const float *weight_in, *weight, *bias;        // [D + 1, G], [H, G]; the GRU candidate's recurrent bias [H]
    float *entered, *states, *cells, *gates;       // [D + 1], [H] and [H] before each step and after the last, [4 H]
    float *outputs, *cell_outputs;                 // [B, L, H]
    const float *grad_outputs, *grad_cell_outputs;             // [B, L, H]
    const float *back_in, *back;                   // [G, P], [G, H]
    float *grad_inputs;                              // [B, L, P], or null
    float *grad_hidden, *grad_cell;                    // [blocks, ROWS, H], initially zero
};

namespace {

constexpr int CHUNK = 8;  // steps whose contributions to the weight gradients are one matrix product

// Two sigmoids with one division.
inline void sigmoids(Vector& x, Vector& y) {
    const Vector one_plus_x = one_plus(x), one_plus_y = one_plus(y);
    const Vector inverse = 1.0f / (one_plus_x * one_plus_y);
    x = inverse * one_plus_y;
    y = inverse * one_plus_x;
}

// One block of trials.
struct Block {
    const Trials& all;
    const int64_t first, count, steps, entries, size;

    Block(const Trials& all, int64_t number)
        : all(all), first(number * ROWS), count(std::min<int64_t>(ROWS, all.trials - first)), steps(all.steps),
          entries(all.entries + 1), size(all.size) {}

    float* entered(int64_t step) const { return all.entered + (first * steps + step * ROWS) * entries; }
    float* states(int64_t step) const { return all.states + (first * (steps + 1) + step * ROWS) * size; }
    float* cells(int64_t step) const { return all.cells + (first * (steps + 1) + step * ROWS) * size; }
    float* gates(int64_t step) const { return all.gates + (first * steps + step * ROWS) * 4 * size; }

    // A step of the block's first trial in one of torch's tensors.
    template <typename Number>
    Number* first_row(Number* trials, int64_t step, int64_t width) const {
        return trials + (first * steps + step) * width;
    }

    // Copy the rows of a step to one of torch's tensors.
    void give(const float* rows, int64_t width, float* trials, int64_t step) const {
        float* to = first_row(trials, step, width);
        for (int64_t row = 0; row < count; ++row) std::copy_n(rows + row * width, width, to + row * steps * width);
    }

    // Copy initial states from torch to the first step.
    void begin(const float* from, float* rows) const {
        std::copy_n(from + first * size, count * size, rows);
        std::fill(rows + count * size, rows + ROWS * size, 0.0f);
    }

    // Write a step's inputs, followed by a 1.
    void enter(int64_t step) const {
        float* row = entered(step);
        const float* from = first_row(all.inputs, step, entries - 1);
        for (int64_t i = 0; i < ROWS; ++i, row += entries, from += steps * (entries - 1)) {
            if (i < count)
                std::copy_n(from, entries - 1, row);
            else
                std::fill_n(row, entries - 1, 0.0f);
            row[entries - 1] = 1.0f;
        }
    }

    // Add the gradients of a step's outputs to those that come from later steps.
    void add_gradients(const float* grad_outputs, int64_t step, float* rows) const {
        const float* from = first_row(grad_outputs, step, size);
        for (int64_t row = 0; row < count; ++row, rows += size, from += steps * size)
            for (int64_t unit = 0; unit < size; unit += WIDTH) store(rows + unit, load(rows + unit) + load(from + unit));
    }

    // Write the gradients of a step's inputs, given those of its gates before activation.
    void give_inputs(const float* grad_gates, int64_t gates, int64_t step, float* workspace) const {
        if (!all.grad_inputs) return;
        std::fill_n(workspace, ROWS * all.padded, 0.0f);
        add_product({grad_gates, 4 * size, 1}, all.back_in, all.padded, ROWS, gates, all.padded, workspace, all.padded);
        give(workspace, all.padded, all.grad_inputs, step);
    }
};

void gru_step(const Block& block, int64_t step) {
    const int64_t size = block.size;
    for (int64_t row = 0; row < ROWS; ++row) {
        float* gate = block.gates(step) + row * 4 * size;
        const float* before = block.states(step) + row * size;
        float* after = block.states(step + 1) + row * size;
        for (int64_t unit = 0; unit < size; unit += WIDTH) {
            const Vector recurrent = load(gate + unit);
            Vector reset = load(gate + size + unit), update = load(gate + 2 * size + unit);
            sigmoids(reset, update);
            const Vector candidate = tanh_of(load(gate + 3 * size + unit) + reset * recurrent);
            store(gate + size + unit, reset);
            store(gate + 2 * size + unit, update);
            store(gate + 3 * size + unit, candidate);
            store(after + unit, candidate + update * (load(before + unit) - candidate));
        }
    }
}

// Write the gradients of a step's gates before activation; ``total`` becomes the part of the gradient that reaches the
// previous state directly.
void gru_step_back(const Block& block, int64_t step, float* total, float* grad_gates) {
    const int64_t size = block.size;
    for (int64_t row = 0; row < ROWS; ++row, total += size, grad_gates += 4 * size) {
        const float* gate = block.gates(step) + row * 4 * size;
        const float* before = block.states(step) + row * size;
        for (int64_t unit = 0; unit < size; unit += WIDTH) {
            const Vector recurrent = load(gate + unit), reset = load(gate + size + unit);
            const Vector update = load(gate + 2 * size + unit), candidate = load(gate + 3 * size + unit);
            const Vector all = load(total + unit), kept = all * update, rest = all - kept;
            const Vector grad_candidate = rest * (1.0f - candidate * candidate);
            const Vector grad_recurrent = grad_candidate * reset;
            store(grad_gates + unit, grad_recurrent);
            store(grad_gates + size + unit, grad_recurrent * (1.0f - reset) * recurrent);
            store(grad_gates + 2 * size + unit, rest * update * (load(before + unit) - candidate));
            store(grad_gates + 3 * size + unit, grad_candidate);
            store(total + unit, kept);
        }
    }
}

void lstm_step(const Block& block, int64_t step) {
    const int64_t size = block.size;
    for (int64_t row = 0; row < ROWS; ++row) {
        float* gate = block.gates(step) + row * 4 * size;
        const float* kept = block.cells(step) + row * size;
        float *cell = block.cells(step + 1) + row * size, *after = block.states(step + 1) + row * size;
        for (int64_t unit = 0; unit < size; unit += WIDTH) {
            Vector write = load(gate + unit), forget = load(gate + size + unit);
            sigmoids(write, forget);
            const Vector candidate = tanh_of(load(gate + 2 * size + unit));
            const Vector output = 1.0f / one_plus(load(gate + 3 * size + unit));
            const Vector now = forget * load(kept + unit) + write * candidate;
            store(gate + unit, write);
            store(gate + size + unit, forget);
            store(gate + 2 * size + unit, candidate);
            store(gate + 3 * size + unit, output);
            store(cell + unit, now);
            store(after + unit, output * tanh_of(now));
        }
    }
}

// As ``gru_step_back``; only the cells have a direct path to the previous step.
void lstm_step_back(const Block& block, int64_t step, float* total, float* cell_total, float* grad_gates) {
    const int64_t size = block.size;
    for (int64_t row = 0; row < ROWS; ++row, total += size, cell_total += size, grad_gates += 4 * size) {
        const float* gate = block.gates(step) + row * 4 * size;
        const float *kept = block.cells(step) + row * size, *now = block.cells(step + 1) + row * size;
        for (int64_t unit = 0; unit < size; unit += WIDTH) {
            const Vector write = load(gate + unit), forget = load(gate + size + unit);
            const Vector candidate = load(gate + 2 * size + unit), output = load(gate + 3 * size + unit);
            const Vector squashed = tanh_of(load(now + unit)), all = load(total + unit);
            const Vector grad_cell = load(cell_total + unit) + all * output * (1.0f - squashed * squashed);
            store(grad_gates + unit, grad_cell * candidate * write * (1.0f - write));
            store(grad_gates + size + unit, grad_cell * load(kept + unit) * forget * (1.0f - forget));
            store(grad_gates + 2 * size + unit, grad_cell * write * (1.0f - candidate * candidate));
            store(grad_gates + 3 * size + unit, all * squashed * output * (1.0f - output));
            store(cell_total + unit, grad_cell * forget);
            store(total + unit, Vector{});
        }
    }
}

}  // namespace

extern "C" {

// Size of the workspace of a backward pass.
int64_t workspace(int64_t size, int64_t padded) { return ROWS * (CHUNK * 4 * size + padded); }

// A step's gates [4 H] are the candidate's recurrent term, reset gate, update gate and candidate.
void gru(const Trials* all, int64_t first, int64_t last) {
    for (; first < last; ++first) {
        const Block block(*all, first);
        const int64_t size = block.size;
        block.begin(all->hidden, block.states(0));
        for (int64_t step = 0; step < block.steps; ++step) {
            float* gates = block.gates(step);
            for (int64_t row = 0; row < ROWS; ++row) {
                std::copy_n(all->bias, size, gates + row * 4 * size);
                std::fill_n(gates + row * 4 * size + size, 3 * size, 0.0f);
            }
            block.enter(step);
            const Left entered{block.entered(step), block.entries, 1}, before{block.states(step), size, 1};
            add_product(entered, all->weight_in, 3 * size, ROWS, block.entries, 3 * size, gates + size, 4 * size);
            add_product(before, all->weight, 3 * size, ROWS, size, 3 * size, gates, 4 * size);
            gru_step(block, step);
            block.give(block.states(step + 1), size, all->outputs, step);
        }
    }
}

// Add to ``grad_weight`` [H, 3 H] and ``grad_weight_in`` [D + 1, 4 H], whose last row is for both biases.
void gru_back(
    const Trials* all, int64_t first, int64_t last, float* grad_weight, float* grad_weight_in, float* workspace
) {
    for (; first < last; ++first) {
        const Block block(*all, first);
        const int64_t size = block.size, entries = block.entries;
        float* total = all->grad_hidden + block.first * size;
        for (int64_t end = block.steps, start; end > 0; end = start) {
            start = std::max<int64_t>(0, end - CHUNK);
            for (int64_t step = end - 1; step >= start; --step) {
                float* grad_gates = workspace + (step - start) * ROWS * 4 * size;
                block.add_gradients(all->grad_outputs, step, total);
                gru_step_back(block, step, total, grad_gates);
                add_product({grad_gates, 4 * size, 1}, all->back, size, ROWS, 3 * size, size, total, size);
                block.give_inputs(grad_gates + size, 3 * size, step, workspace + ROWS * CHUNK * 4 * size);
            }
            const int64_t depth = (end - start) * ROWS;
            const float* entered = block.entered(start);
            const Left before{block.states(start), 1, size};
            add_product(before, workspace, 4 * size, size, depth, 3 * size, grad_weight, 3 * size);
            add_product(
                {entered, 1, entries}, workspace + size, 4 * size, entries - 1, depth, 3 * size, grad_weight_in + size,
                4 * size
            );
            add_product(
                {entered + entries - 1, 1, entries}, workspace, 4 * size, 1, depth, 4 * size,
                grad_weight_in + (entries - 1) * 4 * size, 4 * size
            );
        }
    }
}

// A step's gates are in torch's order: input gate, forget gate, candidate, output gate.
void lstm(const Trials* all, int64_t first, int64_t last) {
    for (; first < last; ++first) {
        const Block block(*all, first);
        const int64_t size = block.size;
        block.begin(all->hidden, block.states(0));
        block.begin(all->cell, block.cells(0));
        for (int64_t step = 0; step < block.steps; ++step) {
            float* gates = block.gates(step);
            std::fill_n(gates, ROWS * 4 * size, 0.0f);
            block.enter(step);
            const Left entered{block.entered(step), block.entries, 1}, before{block.states(step), size, 1};
            add_product(entered, all->weight_in, 4 * size, ROWS, block.entries, 4 * size, gates, 4 * size);
            add_product(before, all->weight, 4 * size, ROWS, size, 4 * size, gates, 4 * size);
            lstm_step(block, step);
            block.give(block.states(step + 1), size, all->outputs, step);
            block.give(block.cells(step + 1), size, all->cell_outputs, step);
        }
    }
}

// Add to ``grad_weight`` [H, 4 H] and ``grad_weight_in`` [D + 1, 4 H], whose last row is for the bias.
void lstm_back(
    const Trials* all, int64_t first, int64_t last, float* grad_weight, float* grad_weight_in, float* workspace
) {
    for (; first < last; ++first) {
        const Block block(*all, first);
        const int64_t size = block.size, entries = block.entries;
        float *total = all->grad_hidden + block.first * size, *cell_total = all->grad_cell + block.first * size;
        for (int64_t end = block.steps, start; end > 0; end = start) {
            start = std::max<int64_t>(0, end - CHUNK);
            for (int64_t step = end - 1; step >= start; --step) {
                float* grad_gates = workspace + (step - start) * ROWS * 4 * size;
                block.add_gradients(all->grad_outputs, step, total);
                block.add_gradients(all->grad_cell_outputs, step, cell_total);
                lstm_step_back(block, step, total, cell_total, grad_gates);
                add_product({grad_gates, 4 * size, 1}, all->back, size, ROWS, 4 * size, size, total, size);
                block.give_inputs(grad_gates, 4 * size, step, workspace + ROWS * CHUNK * 4 * size);
            }
            const int64_t depth = (end - start) * ROWS;
            const Left before{block.states(start), 1, size}, entered{block.entered(start), 1, entries};
            add_product(before, workspace, 4 * size, size, depth, 4 * size, grad_weight, 4 * size);
            add_product(entered, workspace, 4 * size, entries, depth, 4 * size, grad_weight_in, 4 * size);
        }
    }
}

}
