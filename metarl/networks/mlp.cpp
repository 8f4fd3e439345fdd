// MLPs with tanh between their layers, N at once, each with its own parameters, and their derivatives.
//
// A network goes through its rows in blocks, each from the first layer to the last and back, so that a block stays in a
// core's cache. Columns are padded with zeros to whole vectors. What derivatives need is saved for each row: the
// outputs of all hidden layers side by side, S in all, and the derivatives by each layer's sums, S + the padded outputs.

#include <vector>

#include "vectors.h"

namespace {
constexpr int64_t BLOCK = 32;  // rows
constexpr int64_t MULTIPLE = 16;  // of which padded sizes are multiples
typedef std::vector<float> Floats;
}  // namespace

// Arguments. Parameters are weight, bias, weight, bias and so on, with a pointer for each; ``steps`` are the numbers of
// floats from one network's to the next one's. Directions are of all parameters.
struct Networks {
    int64_t networks, rows, layers;
    const int64_t* sizes;            // [layers + 1]
    const float* inputs;             // [networks, rows, sizes[0]]
    const float* const* parameters;
    const int64_t* parameter_steps;
    float *hidden, *slopes;          // [networks, rows, S], [networks, rows, S + padded outputs]; or null, not to be saved
    float* outputs;                  // [networks, rows, outputs]
    const float* output_slopes;      // likewise
    const float* const* directions;  // or null
    const int64_t* direction_steps;
    float* const* gradients;         // of each network's parameters, or null
};

namespace {

inline int64_t padded(int64_t size) { return (size + MULTIPLE - 1) / MULTIPLE * MULTIPLE; }

void copy_rows(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to, int64_t to_row) {
    for (; rows > 0; --rows, from += from_row, to += to_row) std::copy_n(from, columns, to);
}

// One layer's parameters of one network, or a direction of them; copied only where columns are missing.
struct Layer {
    int64_t in, out, wide_in, wide;
    const float *weight, *bias;               // [in, wide], [wide]
    Floats own_weight, own_bias, transposed;  // the last one [out, wide_in]

    Layer(int64_t in, int64_t out, const float* weights, const float* biases, bool both_ways)
        : in(in), out(out), wide_in(padded(in)), wide(padded(out)), weight(weights), bias(biases) {
        if (wide != out) {
            own_weight.resize(in * wide);
            own_bias.resize(wide);
            copy_rows(weights, out, in, out, own_weight.data(), wide);
            std::copy_n(biases, out, own_bias.data());
            weight = own_weight.data();
            bias = own_bias.data();
        }
        if (!both_ways) return;
        transposed.resize(out * wide_in);
        for (int64_t i = 0; i < in; ++i)
            for (int64_t j = 0; j < out; ++j) transposed[j * wide_in + i] = weights[i * out + j];
    }

    // to [rows, wide] = bias, in each row
    void begin(int64_t rows, float* to, int64_t to_row) const { copy_rows(bias, 0, rows, wide, to, to_row); }

    // to [rows, wide] += from [rows, in] @ weight
    void add_forward(const float* from, int64_t from_row, int64_t rows, float* to, int64_t to_row) const {
        add_product({from, from_row, 1}, weight, wide, rows, in, wide, to, to_row);
    }

    // to [rows, wide_in] += from [rows, out] @ weight'
    void add_back(const float* from, int64_t from_row, int64_t rows, float* to, int64_t to_row) const {
        add_product({from, from_row, 1}, transposed.data(), wide_in, rows, out, wide_in, to, to_row);
    }
};

// The gradients of one layer's parameters.
struct Gradients {
    int64_t in, out, wide;
    Floats weight, bias;  // [in, wide], [wide]

    explicit Gradients(const Layer& layer)
        : in(layer.in), out(layer.out), wide(layer.wide), weight(in * wide), bias(wide) {}

    // weight += left' [in, rows] @ right [rows, wide]
    void add_outer(const float* left, int64_t left_row, const float* right, int64_t right_row, int64_t rows) {
        add_product({left, 1, left_row}, right, right_row, in, rows, wide, weight.data(), wide);
    }

    // bias += the sum of the rows
    void add_sum(const float* values, int64_t row, int64_t rows) {
        for (; rows > 0; --rows, values += row)
            for (int64_t j = 0; j < wide; j += WIDTH) store(&bias[j], load(&bias[j]) + load(values + j));
    }

    void write(float* weights, float* biases) const {
        copy_rows(weight.data(), wide, in, out, weights, out);
        std::copy_n(bias.data(), out, biases);
    }
};

// One network and, in turn, its blocks of rows.
struct Network {
    const Networks& all;
    const int64_t number;
    std::vector<Layer> layers, directions;
    std::vector<Gradients> gradients;
    std::vector<int64_t> offsets;  // of each layer in what is saved for a row
    int64_t width, whole;          // S, and S + padded outputs
    int64_t rows;                  // of the block
    const float* inputs;
    float *hidden, *slopes;
    Floats forgotten;  // in the place of what is not saved, which is one of the two at most

    Network(const Networks& all, int64_t number) : all(all), number(number) {
        read(all.parameters, all.parameter_steps, layers);
        if (all.directions) read(all.directions, all.direction_steps, directions);
        if (all.gradients)
            for (const Layer& layer : layers) gradients.emplace_back(layer);
        for (int64_t i = 0; i < all.layers; ++i) offsets.push_back(i ? offsets[i - 1] + layers[i - 1].wide : 0);
        width = offsets.back();
        whole = width + layers.back().wide;
        forgotten.resize(BLOCK * whole);
    }

    void read(const float* const* from, const int64_t* steps, std::vector<Layer>& to) const {
        to.reserve(all.layers);
        for (int64_t i = 0; i < all.layers; ++i, from += 2, steps += 2)
            to.emplace_back(
                all.sizes[i], all.sizes[i + 1], from[0] + number * steps[0], from[1] + number * steps[1],
                all.gradients != nullptr
            );
    }

    void write_gradients() const {
        for (int64_t i = 0; i < all.layers; ++i) {
            const Gradients& own = gradients[i];
            own.write(all.gradients[2 * i] + number * own.in * own.out, all.gradients[2 * i + 1] + number * own.out);
        }
    }

    // Go to the block of rows from ``start`` on.
    void enter(int64_t start) {
        const int64_t first = number * all.rows + start;
        rows = std::min(BLOCK, all.rows - start);
        inputs = all.inputs + first * layers[0].in;
        hidden = all.hidden ? all.hidden + first * width : forgotten.data();
        slopes = all.slopes ? all.slopes + first * whole : forgotten.data();
    }

    // What layer i reads, and the distance of its rows.
    const float* entering(int64_t i, const float* kept) const { return i ? kept + offsets[i - 1] : inputs; }
    int64_t entering_row(int64_t i) const { return i ? width : layers[0].in; }

    // The rows of an argument [networks, rows, outputs] that belong to the block.
    template <typename Number>
    Number* of_block(Number* values, int64_t start) const {
        return values + (number * all.rows + start) * layers.back().out;
    }

    template <typename Function>  // of a float's place in what is saved for the block's rows
    void each_unit(int64_t i, Function function) const {
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t j = offsets[i]; j < offsets[i] + layers[i].wide; j += WIDTH) function(row, j);
    }

    void forward(float* outputs) {
        for (int64_t i = 0; i < all.layers; ++i) {
            const bool last = i + 1 == all.layers;
            float* to = last ? outputs : hidden + offsets[i];
            const int64_t to_row = last ? layers[i].wide : width;
            layers[i].begin(rows, to, to_row);
            layers[i].add_forward(entering(i, hidden), entering_row(i), rows, to, to_row);
            if (!last)
                each_unit(i, [&](int64_t row, int64_t j) {
                    float* at = hidden + row * width + j;
                    store(at, tanh_of(load(at)));
                });
        }
    }

    // Add the gradients of the parameters, given those of the outputs in ``slopes``, and complete ``slopes``.
    void back() {
        for (int64_t i = all.layers - 1; i >= 0; --i) {
            float* slope = slopes + offsets[i];
            gradients[i].add_outer(entering(i, hidden), entering_row(i), slope, whole, rows);
            gradients[i].add_sum(slope, whole, rows);
            if (!i) break;
            for (int64_t row = 0; row < rows; ++row)
                std::fill_n(slopes + row * whole + offsets[i - 1], layers[i].wide_in, 0.0f);
            layers[i].add_back(slope, whole, rows, slopes + offsets[i - 1], whole);
            each_unit(i - 1, [&](int64_t row, int64_t j) {
                const Vector unit = load(hidden + row * width + j);
                float* at = slopes + row * whole + j;
                store(at, load(at) * (1.0f - unit * unit));
            });
        }
    }

    // The derivatives of the hidden layers and outputs along the directions, into ``moved`` and ``outputs``;
    // and into ``bent`` the part of that of ``slopes`` that comes from the slope of tanh, -2 tanh(z) (1 - tanh(z)²).
    void forward_along(float* moved, float* bent, float* outputs) {
        for (int64_t i = 0; i < all.layers; ++i) {
            const bool last = i + 1 == all.layers;
            float* to = last ? outputs : moved + offsets[i];
            const int64_t to_row = last ? layers[i].wide : width;
            directions[i].begin(rows, to, to_row);
            directions[i].add_forward(entering(i, hidden), entering_row(i), rows, to, to_row);
            if (i) layers[i].add_forward(entering(i, moved), width, rows, to, to_row);
            if (!last)
                each_unit(i, [&](int64_t row, int64_t j) {
                    const Vector unit = load(hidden + row * width + j), sum = load(moved + row * width + j);
                    store(bent + row * whole + j, -2.0f * unit * sum * load(slopes + row * whole + j));
                    store(moved + row * width + j, sum * (1.0f - unit * unit));
                });
        }
    }

    // Add the derivatives of ``back``'s gradients along the directions; ``bent`` ends with that of the
    // outputs' gradients.
    void back_along(const float* moved, float* bent) {
        for (int64_t i = all.layers - 1; i >= 0; --i) {
            const float *slope = slopes + offsets[i], *turned = bent + offsets[i];
            gradients[i].add_outer(entering(i, hidden), entering_row(i), turned, whole, rows);
            gradients[i].add_sum(turned, whole, rows);
            if (!i) break;
            gradients[i].add_outer(entering(i, moved), width, slope, whole, rows);
            Floats sums(rows * layers[i].wide_in);
            layers[i].add_back(turned, whole, rows, sums.data(), layers[i].wide_in);
            directions[i].add_back(slope, whole, rows, sums.data(), layers[i].wide_in);
            each_unit(i - 1, [&](int64_t row, int64_t j) {
                const Vector unit = load(hidden + row * width + j);
                const Vector sum = load(&sums[row * layers[i].wide_in + j - offsets[i - 1]]);
                float* at = bent + row * whole + j;
                store(at, load(at) + sum * (1.0f - unit * unit));
            });
        }
    }
};

}  // namespace

extern "C" {

// Write ``outputs`` and ``hidden``.
void forward(const Networks* all, int64_t first, int64_t last) {
    for (; first < last; ++first) {
        Network network(*all, first);
        const int64_t out = network.layers.back().out, wide = network.layers.back().wide;
        Floats outputs(BLOCK * wide);
        for (int64_t start = 0; start < all->rows; start += BLOCK) {
            network.enter(start);
            network.forward(outputs.data());
            copy_rows(outputs.data(), wide, network.rows, out, network.of_block(all->outputs, start), out);
        }
    }
}

// Write ``gradients`` and ``slopes``.
void back(const Networks* all, int64_t first, int64_t last) {
    for (; first < last; ++first) {
        Network network(*all, first);
        const int64_t out = network.layers.back().out;
        for (int64_t start = 0; start < all->rows; start += BLOCK) {
            network.enter(start);
            float* at = network.slopes + network.width;
            for (int64_t row = 0; row < network.rows; ++row)
                std::fill_n(at + row * network.whole, network.layers.back().wide, 0.0f);
            copy_rows(network.of_block(all->output_slopes, start), out, network.rows, out, at, network.whole);
            network.back();
        }
        network.write_gradients();
    }
}

// Write the derivative of ``outputs`` and, if they are wanted, of ``gradients`` along ``directions``, that of
// the outputs' gradients being ``output_slopes``.
void push(const Networks* all, int64_t first, int64_t last) {
    for (; first < last; ++first) {
        Network network(*all, first);
        const int64_t out = network.layers.back().out, wide = network.layers.back().wide;
        Floats outputs(BLOCK * wide), moved(BLOCK * network.width), bent(BLOCK * network.whole);
        for (int64_t start = 0; start < all->rows; start += BLOCK) {
            network.enter(start);
            network.forward_along(moved.data(), bent.data(), outputs.data());
            copy_rows(outputs.data(), wide, network.rows, out, network.of_block(all->outputs, start), out);
            if (!all->gradients) continue;
            if (all->output_slopes)
                copy_rows(
                    network.of_block(all->output_slopes, start), out, network.rows, out, bent.data() + network.width,
                    network.whole
                );
            network.back_along(moved.data(), bent.data());
        }
        if (all->gradients) network.write_gradients();
    }
}

}
