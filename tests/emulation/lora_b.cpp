// The B half of adapters' products against f64.
#include "lora.h"

namespace b_forward_file {
#include "../../src/ops/lora/b_forward.cu"
}
namespace b_backward_file {
#include "../../src/ops/lora/b_backward.cu"
}
namespace b_gradient_file {
#include "../../src/ops/lora/b_gradient.cu"
}

// Of four kernels, the one for a rank.
template <typename Kernel>
static Kernel of_rank(int rank, Kernel r8, Kernel r16, Kernel r32, Kernel r64) {
  return rank == 8 ? r8 : rank == 16 ? r16 : rank == 32 ? r32 : r64;
}

// Outputs of a case's adapters, as q, k and v have them: the first is the widest. Nothing, zero, where there is none.
static int out_width(const Case& c, int i) { return i >= c.adapters ? 0 : i == 0 ? c.width : (c.width / 16 + i) * 8; }

// dBs, one below the other, of u's strips: of sequences from `first` on, before `last`, onto `before`.
static std::vector<float> b_gradient(const Inputs& in, const std::vector<std::vector<bf16>>& dy,
                                     const std::vector<bf16>& u, const std::vector<float>& before, size_t first,
                                     size_t last) {
  using namespace b_gradient_file;
  const Case& c = in.c;
  auto kernel = of_rank(c.rank, lora_b_gradient_r8, lora_b_gradient_r16, lora_b_gradient_r32, lora_b_gradient_r64);
  std::vector<uint32_t> ends = {0};
  unsigned longest = 0;
  for (size_t s = first; s < last; s++) {
    unsigned count = (c.lengths[s] + TOKENS - 1) / TOKENS;
    ends.push_back(ends.back() + count), longest = std::max(longest, count);
  }
  size_t n[3], blocks = 0;
  for (int i = 0; i < 3; i++) n[i] = (size_t)out_width(c, i) * c.rank, blocks += (out_width(c, i) + 127) / 128;
  size_t all = n[0] + n[1] + n[2];
  emu::Array<bf16> dy0(dy[0]), dy1(dy[1 % c.adapters]), dy2(dy[2 % c.adapters]), reduced(u);
  emu::Array<uint32_t> starts(in.starts), chunks(ends);
  emu::Array<float> partial(ends.back() * all), held(before), total(all);
  auto strip = [&](int i) { return i < c.adapters ? reduced.data() + i * c.rank : nullptr; };
  emu::launch(dim3(blocks, longest, last - first), dim3(256), 0, [&] {
    kernel(dy0.data(), dy1.data(), dy2.data(), strip(0), strip(1), strip(2), partial.data(), starts.data() + first,
           chunks.data(), out_width(c, 0), out_width(c, 1), out_width(c, 2), in.columns);
  });
  size_t begin[3] = {0, n[0], n[0] + n[1]};
  auto from = [&](int i) { return before.empty() || i >= c.adapters ? nullptr : held.data() + begin[i]; };
  emu::launch(dim3(2), dim3(32), 0, [&] {
    backward_file::lora_backward_sum(partial.data(), from(0), from(1), from(2), total.data(), chunks.data(),
                                     last - first, all, n[0], n[1]);
  });
  return total.values();
}

static void test_b_gradient(const Inputs& in) {
  const Case& c = in.c;
  auto u = normals_bf16((size_t)in.rows * in.columns);
  std::vector<std::vector<bf16>> dy;
  std::vector<double> exact;
  std::vector<float> before;
  for (int i = 0; i < c.adapters; i++) {
    int width = out_width(c, i);
    dy.push_back(normals_bf16((size_t)in.rows * width));
    for (int k = 0; k < width; k++)
      for (int r = 0; r < c.rank; r++) {
        before.push_back(normal()), exact.push_back(before.back());
        for (int row = 0; row < in.rows; row++)
          exact.back() +=
              (double)to_float(dy[i][(size_t)row * width + k]) * to_float(u[row * in.columns + i * c.rank + r]);
      }
  }
  size_t count = c.lengths.size();
  auto found = b_gradient(in, dy, u, before, 0, count);
  close<float>(std::string(c.name) + ", dB", {found.begin(), found.end()}, exact, 4 * sqrt(in.rows));

  std::vector<float> sum = before;
  for (size_t s = 0; s < count; s++) {
    if (!c.lengths[s]) continue;
    Case alone;
    std::vector<std::vector<bf16>> dy_alone;
    for (int i = 0; i < c.adapters; i++) dy_alone.push_back(in.rows_of(dy[i], s, out_width(c, i)));
    sum = b_gradient(Inputs(in, alone, s), dy_alone, in.rows_of(u, s, in.columns), sum, 0, 1);
  }
  check(std::string(c.name) + ", dB a sequence at a time", same_bits(sum, found));
  auto half = b_gradient(in, dy, u, before, 0, count / 2);
  check(std::string(c.name) + ", dB in two groups", same_bits(b_gradient(in, dy, u, half, count / 2, count), found));
}

// Rows from `first` on, before `last`, of y + u · Bᵀ.
static std::vector<std::vector<bf16>> b_forward(const Inputs& in, std::vector<std::vector<bf16>> y,
                                                const std::vector<bf16>& u, const std::vector<std::vector<bf16>>& b,
                                                int first, int last) {
  using namespace b_forward_file;
  const Case& c = in.c;
  auto kernel = of_rank(c.rank, lora_b_forward_r8, lora_b_forward_r16, lora_b_forward_r32, lora_b_forward_r64);
  int blocks = 0;
  for (int i = 0; i < c.adapters; i++) {
    size_t width = out_width(c, i);
    y[i] = {y[i].begin() + first * width, y[i].begin() + last * width};
    blocks += (width + 255) / 256;
  }
  emu::Array<bf16> y0(y[0]), y1(y[1 % c.adapters]), y2(y[2 % c.adapters]);
  emu::Array<bf16> b0(b[0]), b1(b[1 % c.adapters]), b2(b[2 % c.adapters]);
  emu::Array<bf16> reduced({u.begin() + (size_t)first * in.columns, u.begin() + (size_t)last * in.columns});
  auto strip = [&](int i) { return i < c.adapters ? reduced.data() + i * c.rank : nullptr; };
  emu::launch(dim3(blocks, (last - first + ROWS - 1) / ROWS), dim3(256), 0, [&] {
    kernel(y0.data(), y1.data(), y2.data(), strip(0), strip(1), strip(2), b0.data(), b1.data(), b2.data(), last - first,
           out_width(c, 0), out_width(c, 1), out_width(c, 2), in.columns);
  });
  std::vector<std::vector<bf16>> found = {y0.values(), y1.values(), y2.values()};
  found.resize(c.adapters);
  return found;
}

// Rows from `first` on, before `last`, of scaling · dy · B.
static std::vector<std::vector<bf16>> b_backward(const Inputs& in, std::vector<std::vector<bf16>> dy,
                                                 const std::vector<std::vector<bf16>>& b, float scaling, int first,
                                                 int last) {
  using namespace b_backward_file;
  const Case& c = in.c;
  auto kernel = of_rank(c.rank, lora_b_backward_r8, lora_b_backward_r16, lora_b_backward_r32, lora_b_backward_r64);
  for (int i = 0; i < c.adapters; i++) {
    size_t width = out_width(c, i);
    dy[i] = {dy[i].begin() + first * width, dy[i].begin() + last * width};
  }
  emu::Array<bf16> dy0(dy[0]), dy1(dy[1 % c.adapters]), dy2(dy[2 % c.adapters]);
  emu::Array<bf16> b0(b[0]), b1(b[1 % c.adapters]), b2(b[2 % c.adapters]);
  size_t n = (size_t)(last - first) * c.rank;
  emu::Array<bf16> du0(n), du1(n), du2(n);
  emu::launch(dim3((last - first + ROWS - 1) / ROWS, c.adapters), dim3(256), 64 * c.rank, [&] {
    kernel(dy0.data(), dy1.data(), dy2.data(), b0.data(), b1.data(), b2.data(), du0.data(), du1.data(), du2.data(),
           last - first, out_width(c, 0), out_width(c, 1), out_width(c, 2), scaling);
  });
  std::vector<std::vector<bf16>> found = {du0.values(), du1.values(), du2.values()};
  found.resize(c.adapters);
  return found;
}

// Products by rows, and rows from any one on.
static void test_b(const Inputs& in) {
  const Case& c = in.c;
  float scaling = 1.75f;
  auto u = normals_bf16((size_t)in.rows * in.columns);
  std::vector<std::vector<bf16>> y, b;
  for (int i = 0; i < c.adapters; i++) {
    y.push_back(normals_bf16((size_t)in.rows * out_width(c, i)));
    b.push_back(normals_bf16((size_t)out_width(c, i) * c.rank));
  }
  auto forward = b_forward(in, y, u, b, 0, in.rows), backward = b_backward(in, y, b, scaling, 0, in.rows);
  for (int i = 0; i < c.adapters; i++) {
    int width = out_width(c, i);
    auto exact_y = widened(y[i]);
    std::vector<double> exact_du((size_t)in.rows * c.rank);
    for (int row = 0; row < in.rows; row++)
      for (int k = 0; k < width; k++)
        for (int r = 0; r < c.rank; r++) {
          double of_b = to_float(b[i][k * c.rank + r]);
          exact_y[(size_t)row * width + k] += to_float(u[(size_t)row * in.columns + i * c.rank + r]) * of_b;
          exact_du[row * c.rank + r] += scaling * to_float(y[i][(size_t)row * width + k]) * of_b;
        }
    std::string name = std::string(c.name) + ", adapter " + std::to_string(i);
    close<bf16>(name + ", B added", widened(forward[i]), exact_y);
    close<bf16>(name + ", du", widened(backward[i]), exact_du);
  }
  bool same = true;
  int cut = in.rows * 5 / 8;
  if (cut == 0) return;
  auto later = b_forward(in, y, u, b, cut, in.rows), later_du = b_backward(in, y, b, scaling, cut, in.rows);
  for (int i = 0; i < c.adapters; i++) {
    auto tail = [&](const std::vector<bf16>& all, int width) {
      return std::vector<bf16>(all.begin() + (size_t)cut * width, all.end());
    };
    same &= same_bits(later[i], tail(forward[i], out_width(c, i))) && same_bits(later_du[i], tail(backward[i], c.rank));
  }
  check(std::string(c.name) + ", B added and du of later rows alone", same);
}

int main() {
  begin("lora_b");
  for (const Case& c : CASES) {
    Inputs in(c);
    test_b(in);
    test_b_gradient(in);
  }
  return end();
}
