// The kernels on elements against f64: SwiGLU, RoPE, add, bias, cast, activations, embedding, dropout, random numbers,
// AdamW and the norm it clips by.
#include <deque>

#include "rows.h"

#include "../../src/ops/cuda/parts.cuh"

// Each file has functions of the same names.
namespace swiglu {
#include "../../src/ops/swiglu/kernels.cu"
}
namespace rope {
#include "../../src/ops/rope/kernels.cu"
}
namespace add_file {
#include "../../src/ops/add/kernels.cu"
}
namespace cast_file {
#include "../../src/ops/cast/kernels.cu"
}
namespace activation {
#include "../../src/ops/activation/kernels.cu"
}
namespace embedding {
#include "../../src/ops/embedding/kernels.cu"
}
namespace dropout {
#include "../../src/ops/dropout/kernels.cu"
}
namespace randoms {
using dropout::random_block, dropout::Words;
#include "../../src/ops/random/kernels.cu"
}
namespace adamw {
#include "../../src/ops/adamw/kernels.cu"
}

template <typename T, typename Forward, typename Backward>
static void test_swiglu(const char* type, Forward forward, Backward backward, size_t n, size_t offset) {
  Row<T> gate(n, Normals{4}, offset), up(n, Normals(), offset), dact(n, Normals(), offset), act(n, offset),
      dgate(n, offset), dup(n, offset);
  emu::launch(dim3(3), dim3(64), 0, [&] { forward(gate.data(), up.data(), act.data(), n); });
  emu::launch(dim3(2), dim3(96), 0,
              [&] { backward(gate.data(), up.data(), dact.data(), dgate.data(), dup.data(), n); });
  std::vector<double> y(n), dg(n), du(n);
  for (size_t i = 0; i < n; i++) {
    double g = gate.wide(i), s = 1 / (1 + exp(-g));
    y[i] = g * s * up.wide(i), du[i] = dact.wide(i) * g * s, dg[i] = dact.wide(i) * up.wide(i) * s * (1 + g * (1 - s));
  }
  std::string name = std::string("swiglu ") + type + ", " + std::to_string(n) + (offset ? ", not aligned" : "");
  close<T>(name + ", forward", act.all(), y);
  close<T>(name + ", dgate", dgate.all(), dg);
  close<T>(name + ", dup", dup.all(), du);
}

template <typename T, typename Kernel>
static void test_rope(const char* type, Kernel kernel, int heads, int half) {
  std::vector<uint32_t> positions = {0, 1, 63, 64, 7423};
  int kv_heads = heads / 2 + 1;
  size_t tokens = positions.size(), n = tokens * heads * 2 * half, n_kv = tokens * kv_heads * 2 * half;
  std::vector<float> frequencies(half);
  for (int c = 0; c < half; c++) frequencies[c] = (float)pow(500000.0, -(double)c / half);
  Row<T> q(n, Normals()), q_turned(n), q_back(n), k(n_kv, Normals()), k_turned(n_kv), alone(n_kv);
  emu::Array<uint32_t> p(positions);
  emu::Array<float> f(frequencies);
  auto run = [&](const T* from, T* to, int count, const T* from_k, T* to_k, int count_k, float sign) {
    emu::launch(dim3(tokens), dim3(96), 8 * half,
                [&] { kernel(from, to, count, from_k, to_k, count_k, p.data(), f.data(), half, sign); });
  };
  run(q.data(), q_turned.data(), heads, k.data(), k_turned.data(), kv_heads, 1);
  run(q.data(), q_back.data(), heads, nullptr, nullptr, 0, -1);
  run(k.data(), alone.data(), kv_heads, nullptr, nullptr, 0, 1);
  auto check = [&](const std::string& what, Row<T>& x, Row<T>& y, int heads, int sign) {
    std::vector<double> expected(tokens * heads * 2 * half);
    for (size_t head = 0; head < tokens * heads; head++)
      for (int c = 0; c < half; c++) {
        double angle = sign * (double)(frequencies[c] * (float)positions[head / heads]);
        double a = x.wide(head * 2 * half + c), b = x.wide(head * 2 * half + c + half);
        expected[head * 2 * half + c] = a * cos(angle) - b * sin(angle);
        expected[head * 2 * half + c + half] = b * cos(angle) + a * sin(angle);
      }
    close<T>(std::string("rope ") + type + ", " + std::to_string(heads) + " x " + std::to_string(2 * half) + what,
             y.all(), expected);
  };
  check(", q", q, q_turned, heads, 1);
  check(", q back, alone", q, q_back, heads, -1);
  check(", k", k, k_turned, kv_heads, 1);
  check(", k alone", k, alone, kv_heads, 1);
}

template <typename T, typename Add, typename Bias>
static void test_add(const char* type, Add add, Bias add_bias, size_t rows, int width) {
  size_t n = rows * width;
  Row<T> a(n, Normals()), b(n, Normals()), y(n, Normals());
  Row<float> bias(width, Normals());
  std::vector<double> sum(n), biased(n);
  for (size_t i = 0; i < n; i++) sum[i] = a.wide(i) + b.wide(i), biased[i] = y.wide(i) + bias.wide(i % width);
  emu::launch(dim3(2), dim3(64), 0, [&] { add(a.data(), b.data(), n); });
  emu::launch(dim3(rows), dim3(64), 0, [&] { add_bias(y.data(), bias.data(), width); });
  close<T>(std::string("add ") + type + ", " + std::to_string(n), a.all(), sum);
  close<T>(std::string("bias ") + type + ", " + std::to_string(width), y.all(), biased);
}

static void test_cast(size_t n) {
  Row<float> x(n, Normals{3}), back(n);
  x.data()[0] = INFINITY, x.data()[n / 2] = 1.00390625f;  // half way between two bf16: to the even one
  Row<bf16> y(n);
  emu::launch(dim3(2), dim3(32), 0, [&] { cast_file::cast_f32_to_bf16(x.data(), y.data(), n); });
  emu::launch(dim3(2), dim3(32), 0, [&] { cast_file::cast_bf16_to_f32(y.data(), back.data(), n); });
  bool same = true;
  for (size_t i = 0; i < n; i++)
    same &= y.data()[i].bits == to_bf16(x.data()[i]).bits && back.data()[i] == to_float(y.data()[i]);
  check("cast " + std::to_string(n) + ", there and back", same);
}

// Several arrays at once, of which some are not aligned, one is of nothing, and some are of more than a block.
static void test_cast_each() {
  struct Arrays {
    Row<float> x;
    Row<bf16> y;
    Arrays(size_t n, size_t offset) : x(n, Normals{3}, offset), y(n) {}
  };
  std::deque<Arrays> arrays;
  int per_block = 64;
  std::vector<cast_file::Part> parts;
  std::vector<uint32_t> of_block;
  std::pair<size_t, size_t> sizes[] = {{1, 0}, {64, 0}, {0, 0}, {65, 1}, {300, 0}};
  for (auto [n, offset] : sizes) {
    Arrays& each = arrays.emplace_back(n, offset);
    parts.push_back({each.x.data(), each.y.data(), n, of_block.size()});
    of_block.insert(of_block.end(), (n + per_block - 1) / per_block, parts.size() - 1);
  }
  emu::Array<cast_file::Part> table(parts);
  emu::Array<uint32_t> blocks(of_block);
  emu::launch(dim3(of_block.size()), dim3(32), 0,
              [&] { cast_file::cast_f32_to_bf16_each(table.data(), blocks.data(), per_block); });
  bool same = true;
  for (size_t k = 0; k < arrays.size(); k++)
    for (size_t i = 0; i < sizes[k].first; i++)
      same &= arrays[k].y.data()[i].bits == to_bf16(arrays[k].x.data()[i]).bits;
  check("cast of several", same);
}

static void test_activations(size_t n) {
  Row<float> x(n, Normals{2}), dy(n, Normals());
  auto f = [](int kind, double a) {
    return kind == 0 ? 0.5 * a * (1 + erf(a / sqrt(2))) : kind == 1 ? (a > 0 ? a : 0) : tanh(a);
  };
  for (int kind = 0; kind < 3; kind++) {
    Row<float> y(n), dx(n);
    emu::launch(dim3(2), dim3(32), 0, [&] { activation::activation_forward_f32(x.data(), y.data(), kind, n); });
    emu::launch(dim3(2), dim3(32), 0,
                [&] { activation::activation_backward_f32(x.data(), dy.data(), dx.data(), kind, n); });
    std::vector<double> value(n), slope(n);
    for (size_t i = 0; i < n; i++) {
      double a = x.wide(i);
      value[i] = f(kind, a), slope[i] = dy.wide(i) * (f(kind, a + 1e-6) - f(kind, a - 1e-6)) / 2e-6;
    }
    close<float>("activation " + std::to_string(kind) + ", forward", y.all(), value);
    close<float>("activation " + std::to_string(kind) + ", backward", dx.all(), slope);
  }
}

template <typename T, typename Kernel>
static void test_embedding(const char* type, Kernel kernel, int n) {
  std::vector<uint32_t> ids = {4, 0, 4, 6};
  Row<T> table(7 * n, Normals()), y(ids.size() * n);
  emu::Array<uint32_t> i(ids);
  emu::launch(dim3(ids.size()), dim3(64), 0, [&] { kernel(table.data(), i.data(), y.data(), n); });
  std::vector<double> expected;
  for (uint32_t id : ids)
    for (int c = 0; c < n; c++) expected.push_back(table.wide(id * n + c));
  check(std::string("embedding ") + type + ", " + std::to_string(n), y.all() == expected);
}

static void test_embedding_backward(int n) {
  // Ids 4 0 4 6: of 0 row 1, of 4 rows 0 and 2, of 6 row 3.
  Row<float> dy(4 * n, Normals());
  emu::Array<float> dtable(7 * n);
  memset(dtable.data(), 0, 7 * n * 4);
  emu::Array<uint32_t> ids(std::vector<uint32_t>{0, 4, 6}), starts(std::vector<uint32_t>{0, 1, 3, 4}),
      rows(std::vector<uint32_t>{1, 0, 2, 3});
  emu::launch(dim3(3), dim3(64), 0, [&] {
    embedding::embedding_backward_f32(dy.data(), ids.data(), starts.data(), rows.data(), dtable.data(), n);
  });
  bool same = true;
  for (int c = 0; c < n; c++)
    same &= dtable[4 * n + c] == dy.data()[c] + dy.data()[2 * n + c] && dtable[c] == dy.data()[n + c] &&
            dtable[6 * n + c] == dy.data()[3 * n + c] && dtable[n + c] == 0 && dtable[5 * n + c] == 0;
  check("embedding backward, " + std::to_string(n), same);
}

// The vectors published with Random123, and a block beyond 32 bits: a test of src/rng.rs holds the same numbers.
static void test_philox() {
  auto is = [](dropout::Words words, std::vector<uint32_t> expected) {
    return std::equal(expected.begin(), expected.end(), words.w);
  };
  check("philox, published vector 1",
        is(dropout::random_block(0, 0, 0, 0), {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  check("philox, published vector 3",
        is(dropout::random_block(0x299f31d0a4093822ull, 0x03707344, 0x13198a2e85a308d3ull, 0x243f6a88),
           {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  check("philox, beyond 32 bits", is(dropout::random_block(0x123456789abcull, 4, 0xfffffffffffffffeull, 3ull << 32 | 7),
                                     {0xf634a615, 0xef2ac1e9, 0x0269b18d, 0x11e1f601}));
}

template <typename T, typename Kernel>
static void test_dropout(const char* type, Kernel kernel, int width) {
  std::vector<uint32_t> lengths = {3, 0, 5}, starts = {0, 3, 3, 8};
  std::vector<uint64_t> steps = {11, 12, 0xfffffffffffffffeull};
  std::vector<uint32_t> words;
  for (uint64_t step : steps) words.push_back((uint32_t)step), words.push_back((uint32_t)(step >> 32));
  uint64_t seed = 0x123456789abcull;
  size_t n = 8 * width;
  Row<T> x(n, Normals()), y(n);
  emu::Array<uint32_t> from(starts), step_words(words);
  float p = 0.3f, scale = 1 / (1 - p);
  emu::launch(dim3(2, 3), dim3(32), 0,
              [&] { kernel(x.data(), y.data(), from.data(), step_words.data(), width, seed, 4, p, scale); });
  std::vector<double> expected;
  for (size_t s = 0; s < 3; s++)
    for (uint64_t i = 0; i < lengths[s] * width; i++) {
      uint32_t word = dropout::random_block(seed, 4, steps[s], i / 4).w[i % 4];
      float kept = (float)x.wide(starts[s] * width + i) * scale;
      expected.push_back((word >> 8) / 16777216.0 >= p ? Row<T>::held(kept) : 0);
    }
  check(std::string("dropout ") + type + ", width " + std::to_string(width), y.all() == expected);
}

// The numbers of Rng::normal.
template <typename T, typename Kernel>
static void test_normal(const char* type, Kernel kernel, size_t n, size_t offset) {
  Row<T> y(n, offset);
  uint64_t seed = 0x123456789abcull, step = 0xfffffffffffffffeull;
  emu::launch(dim3(2), dim3(32), 0, [&] { kernel(y.data(), seed, 8, step, 0.02f, n); });
  std::vector<double> expected;
  for (size_t i = 0; i < n; i++) {
    dropout::Words words = dropout::random_block(seed, 8, step, i);
    auto unit = [](uint32_t high, uint32_t low) { return ldexp((double)(((uint64_t)high << 21) | (low >> 11)), -53); };
    float z = (float)(sqrt(-2 * log(1 - unit(words.w[0], words.w[1]))) * cos(2 * M_PI * unit(words.w[2], words.w[3])));
    expected.push_back(Row<T>::held(0.02f * z));
  }
  check(std::string("normal ") + type + ", " + std::to_string(n) + (offset ? ", not aligned" : ""),
        y.all() == expected);
}

// Several tensors at once, some not aligned, one of nothing, some of more than a block. The norm against f64; the
// update step by step as PyTorch and src/ops/adamw.rs do, each operation rounded to f32.
static void test_adamw(const char* name, std::vector<std::pair<size_t, size_t>> sizes, double max_norm,
                       float broken = 0) {
  struct Tensors {
    Row<float> grad, param, m, v;
    std::vector<float> p, a, b;
    Tensors(size_t n, size_t offset)
        : grad(n, Normals(), offset),
          param(n, Normals()),
          m(n, Normals{0.1}, offset),
          v(n, Normals{0.1}),
          p(param.data(), param.data() + n),
          a(m.data(), m.data() + n) {
      for (size_t i = 0; i < n; i++) v.data()[i] = fabsf(v.data()[i]);
      b.assign(v.data(), v.data() + n);
    }
  };
  std::deque<Tensors> tensors;
  int per_block = 64;
  std::vector<adamw::Part> parts;
  std::vector<uint32_t> of_block;
  double exact = 0;
  for (auto [n, offset] : sizes) {
    Tensors& t = tensors.emplace_back(n, offset);
    for (double g : t.grad.all()) exact += g * g;
    parts.push_back({t.grad.data(), t.param.data(), t.m.data(), t.v.data(), n, of_block.size()});
    of_block.insert(of_block.end(), (n + per_block - 1) / per_block, parts.size() - 1);
  }
  if (broken) tensors[0].grad.data()[0] = broken;
  emu::Array<adamw::Part> table(parts);
  emu::Array<uint32_t> blocks(of_block);
  emu::Array<double> sums(of_block.size()), norm(2);
  dim3 grid(of_block.size());
  emu::launch(grid, dim3(64), 16, [&] { adamw::square_sums_f32(table.data(), blocks.data(), per_block, sums.data()); });
  emu::launch(dim3(1), dim3(32), 8, [&] { adamw::norm_f64(sums.data(), norm.data(), of_block.size(), max_norm); });
  float decay = 0.998f, c1 = 0.1f, beta2 = 0.999f, c2 = 0.001f, root2 = 0.0316f, eps = 1e-8f, size = 0.2f;
  emu::launch(grid, dim3(32), 0, [&] {
    adamw::adamw_f32(table.data(), blocks.data(), per_block, norm.data(), decay, c1, beta2, c2, root2, eps, size);
  });

  double clip = max_norm > 0 ? fmin(1, max_norm / (sqrt(exact) + 1e-6)) : 1;
  if (!broken)
    check(std::string(name) + ", norm and factor",
          fabs(norm[0] / sqrt(exact) - 1) < 1e-12 && fabs(norm[1] / clip - 1) < 1e-12);
  bool same = true;
  for (Tensors& t : tensors) {
    for (size_t i = 0; i < t.p.size() && !broken; i++) {
      volatile float g = t.grad.data()[i] * (float)norm[1], x;
      x = t.p[i] * decay, t.p[i] = x;
      x = g - t.a[i], x = c1 * x, t.a[i] = t.a[i] + x;
      x = c2 * g, x = x * g;
      volatile float u = t.b[i] * beta2;
      t.b[i] = u + x;
      x = sqrtf(t.b[i]), x = x / root2, x = x + eps;
      u = size * t.a[i], u = u / x, t.p[i] = t.p[i] - u;
    }
    auto equal = [](const Row<float>& x, const std::vector<float>& y) {
      return y.empty() || memcmp(x.data(), y.data(), 4 * y.size()) == 0;
    };
    same &= equal(t.param, t.p) && equal(t.m, t.a) && equal(t.v, t.b);
  }
  check(std::string(name) + (broken ? ", nothing changes" : ", the CPU's bits"), same);
}

int main() {
  begin("elements");
  for (size_t n : {1, 63, 64, 65, 1003}) {
    for (size_t offset : {0, 1}) {
      test_swiglu<bf16>("bf16", swiglu::swiglu_forward_bf16, swiglu::swiglu_backward_bf16, n, offset);
      test_swiglu<float>("f32", swiglu::swiglu_forward_f32, swiglu::swiglu_backward_f32, n, offset);
    }
    test_cast(n);
    test_embedding<bf16>("bf16", embedding::embedding_forward_bf16, n);
    test_embedding<float>("f32", embedding::embedding_forward_f32, n);
    test_embedding_backward(n);
    for (size_t offset : {0, 1}) {
      test_normal<bf16>("bf16", randoms::normal_bf16, n, offset);
      test_normal<float>("f32", randoms::normal_f32, n, offset);
    }
    test_add<bf16>("bf16", add_file::add_bf16, add_file::add_bias_bf16, 3, n);
    test_add<float>("f32", add_file::add_f32, add_file::add_bias_f32, 3, n);
  }
  for (auto [heads, half] : std::vector<std::pair<int, int>>{{1, 1}, {3, 32}, {2, 64}, {2, 5}}) {
    test_rope<bf16>("bf16", rope::rope_bf16, heads, half);
    test_rope<float>("f32", rope::rope_f32, heads, half);
  }
  test_cast_each();
  test_adamw("adamw", {{1, 0}, {63, 0}, {0, 0}, {64, 1}, {65, 0}, {3003, 0}, {200, 3}}, 0);
  test_adamw("adamw, clipped", {{300, 1}, {5, 0}, {64, 0}}, 0.5);
  test_adamw("adamw, below the limit", {{7, 0}, {70, 0}}, 1000);
  test_adamw("adamw, infinity", {{300, 0}, {5, 0}}, 0.5, INFINITY);
  test_adamw("adamw, not a number", {{5, 0}, {300, 0}}, 0, NAN);
  test_activations(65);
  test_philox();
  for (int width : {1, 7, 64, 65}) {
    test_dropout<bf16>("bf16", dropout::dropout_bf16, width);
    test_dropout<float>("f32", dropout::dropout_f32, width);
  }
  return end();
}
