// The A half of adapters' products, with dropout, against f64, and their masks.
#include "lora.h"

namespace forward_file {
#include "../../src/ops/lora/forward.cu"
}

#define EACH(KERNEL, RANK) {KERNEL##_r##RANK##_x1, KERNEL##_r##RANK##_x2, KERNEL##_r##RANK##_x3}
#define TABLE(KERNEL) {EACH(KERNEL, 8), EACH(KERNEL, 16), EACH(KERNEL, 32), EACH(KERNEL, 64)}
// Of a table of kernels, the one for a rank and a number of adapters.
template <typename Table>
static auto chosen(const Table& table, const Case& c) {
  return table[c.rank == 8 ? 0 : c.rank == 16 ? 1 : c.rank == 32 ? 2 : 3][c.adapters - 1];
}

// What the generator decides, at places that no array here reaches and beside the threshold.
static void test_draw() {
  uint32_t step[2] = {0xfffffffe, 7};
  for (float p : {1e-9f, 0.05f, 0.3f, 0.99999994f}) {
    Mask mask(SEED, STREAM, step, p, 1);
    bool same = true;
    for (int row : {0, 1, 300000, INT32_MAX})
      for (int channel : {0, 4, 65528}) {
        Words words = mask.draw(row, 65536, channel);
        for (int j = 0; j < 4; j++)
          same &= words.w[j] == philox_word(step[0] | (uint64_t)step[1] << 32, row * 65536ull + channel + j);
      }
    uint32_t least = (uint32_t)ceil((double)p * 16777216) << 8;
    for (uint32_t word : {0u, 255u, 256u, least - 1, least, least + 1, 0xffffffffu})
      same &= (mask.drop(1, word) == 1) == ((word >> 8) / 16777216.0 >= p);
    check("draws and the threshold, p " + std::to_string(p), same);
  }
}

static std::vector<bf16> forward(const Inputs& in, const std::vector<bf16>& a, float scaling) {
  static decltype(&forward_file::lora_forward_r8_x1) table[4][3] = TABLE(forward_file::lora_forward);
  const Case& c = in.c;
  emu::Array<bf16> x(in.x), weights(a), u((size_t)in.rows * in.columns);
  emu::Array<uint32_t> starts(in.starts), steps(in.step_words());
  int longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  emu::launch(dim3((longest + 15) / 16, c.lengths.size()), dim3(256), 64 * in.columns, [&] {
    chosen(table, c)(x.data(), weights.data(), u.data(), starts.data(), steps.data(), c.width, SEED, STREAM, c.p,
                     in.scale, scaling);
  });
  return u.values();
}

static void test_forward(const Inputs& in) {
  const Case& c = in.c;
  float scaling = 1.75f;
  auto u = forward(in, in.a, scaling);
  std::vector<double> exact(u.size());
  for (int i = 0; i < c.adapters; i++) {
    auto x = in.dropped(i);
    for (int row = 0; row < in.rows; row++)
      for (int r = 0; r < c.rank; r++) {
        double sum = 0;
        const bf16* a = &in.a[(size_t)(i * c.rank + r) * c.width];
        for (int k = 0; k < c.width; k++) sum += x[(size_t)row * c.width + k] * to_float(a[k]);
        exact[(size_t)row * in.columns + i * c.rank + r] = scaling * sum;
      }
  }
  close<bf16>(std::string(c.name) + ", forward", widened(u), exact);
  bool same = true;
  for (size_t s = 0; s < c.lengths.size(); s++) {
    if (!c.lengths[s]) continue;
    Case alone;
    same &= same_bits(forward(Inputs(in, alone, s), in.a, scaling), in.rows_of(u, s, in.columns));
  }
  check(std::string(c.name) + ", forward of each sequence alone", same);
}

// Where each row of A takes one channel, u is dropped x itself.
static void test_mask(const Inputs& in) {
  const Case& c = in.c;
  bool same = true;
  for (int first = 0; first < c.width; first += c.rank) {
    std::vector<bf16> takes((size_t)in.columns * c.width, to_bf16(0));
    int channels = std::min(c.rank, c.width - first);
    for (int i = 0; i < c.adapters; i++)
      for (int r = 0; r < channels; r++) takes[(size_t)(i * c.rank + r) * c.width + first + r] = to_bf16(1);
    auto u = widened(forward(in, takes, 1));
    for (int i = 0; i < c.adapters; i++) {
      auto x = in.dropped(i);
      for (int row = 0; row < in.rows; row++)
        for (int r = 0; r < channels; r++)
          same &= u[(size_t)row * in.columns + i * c.rank + r] == x[(size_t)row * c.width + first + r];
    }
  }
  check(std::string(c.name) + ", the mask of every element", same);
}

struct Gradients {
  std::vector<bf16> dx;
  // (adapters · rank, width)
  std::vector<float> da;
};

// Of sequences from `first` on, before `last`: onto `dx`, where it is not empty, and `before`, likewise.
static Gradients backward(const Inputs& in, const std::vector<std::vector<bf16>>& du, const std::vector<bf16>& dx,
                          const std::vector<float>& before, size_t first, size_t last) {
  static decltype(&backward_file::lora_backward_r8_x1) table[4][3] = TABLE(backward_file::lora_backward);
  const Case& c = in.c;
  unsigned sequences = last - first, longest = 0;
  std::vector<uint32_t> ends = {0}, words;
  for (size_t s = first; s < last; s++) {
    unsigned count = (c.lengths[s] + 255) / 256;
    ends.push_back(ends.back() + count), longest = std::max(longest, count);
  }
  auto all = in.step_words();
  for (size_t i = 0; i < (size_t)c.adapters; i++)
    for (size_t s = first; s < last; s++)
      for (int word : {0, 1}) words.push_back(all[2 * (i * c.lengths.size() + s) + word]);
  size_t n = (size_t)c.rank * c.width;
  emu::Array<bf16> x(in.x), sum(dx), a(in.a), du0(du[0]), du1(du[1 % c.adapters]), du2(du[2 % c.adapters]);
  emu::Array<uint32_t> starts(in.starts), chunks(ends), steps(words);
  emu::Array<float> partial(c.adapters * ends.back() * n), held(before), total(c.adapters * n);
  emu::launch(dim3((c.width + 127) / 128, longest, sequences), dim3(256), 0, [&] {
    chosen(table, c)(x.data(), dx.empty() ? nullptr : sum.data(), a.data(), du0.data(), du1.data(), du2.data(),
                     partial.data(), starts.data() + first, chunks.data(), steps.data(), c.width, SEED, STREAM, c.p,
                     in.scale);
  });
  auto from = [&](int i) { return before.empty() || i >= c.adapters ? nullptr : held.data() + i * n; };
  emu::launch(dim3(2), dim3(32), 0, [&] {
    backward_file::lora_backward_sum(partial.data(), from(0), from(1), from(2), total.data(), chunks.data(), sequences,
                                     c.adapters * n, n, c.adapters > 1 ? n : 0);
  });
  return {sum.values(), total.values()};
}

static void test_backward(const Inputs& in) {
  const Case& c = in.c;
  size_t n = (size_t)in.rows * c.width;
  std::vector<std::vector<bf16>> du;
  for (int i = 0; i < c.adapters; i++) du.push_back(normals_bf16((size_t)in.rows * c.rank));
  auto dx = normals_bf16(n);
  std::vector<float> before((size_t)in.columns * c.width);
  for (float& value : before) value = normal();

  auto exact_dx = widened(dx);
  std::vector<double> exact_da(before.begin(), before.end());
  for (int i = 0; i < c.adapters; i++) {
    auto x = in.dropped(i);
    for (size_t s = 0; s < c.lengths.size(); s++)
      for (size_t row = in.starts[s]; row < in.starts[s + 1]; row++)
        for (int k = 0; k < c.width; k++) {
          double back = 0;
          for (int r = 0; r < c.rank; r++) {
            double d = to_float(du[i][row * c.rank + r]);
            size_t weight = (size_t)(i * c.rank + r) * c.width + k;
            back += d * to_float(in.a[weight]), exact_da[weight] += d * x[row * c.width + k];
          }
          if (in.kept(i, s, (row - in.starts[s]) * c.width + k)) exact_dx[row * c.width + k] += back * in.scale;
        }
  }
  size_t count = c.lengths.size();
  auto found = backward(in, du, dx, before, 0, count);
  close<bf16>(std::string(c.name) + ", dx", widened(found.dx), exact_dx, 4);
  std::vector<double> da(found.da.begin(), found.da.end());
  close<float>(std::string(c.name) + ", dA", da, exact_da, 4 * sqrt(in.rows));
  auto without = backward(in, du, {}, before, 0, count);
  check(std::string(c.name) + ", dA without dx", same_bits(without.da, found.da));

  // Each sequence alone, its dA onto that of those before it.
  bool same = true;
  std::vector<float> sum = before;
  for (size_t s = 0; s < c.lengths.size(); s++) {
    if (!c.lengths[s]) continue;
    Case alone;
    std::vector<std::vector<bf16>> du_alone;
    for (auto& each : du) du_alone.push_back(in.rows_of(each, s, c.rank));
    auto gradients = backward(Inputs(in, alone, s), du_alone, in.rows_of(dx, s, c.width), sum, 0, 1);
    same &= same_bits(gradients.dx, in.rows_of(found.dx, s, c.width));
    sum = gradients.da;
  }
  check(std::string(c.name) + ", backward a sequence at a time", same && same_bits(sum, found.da));
  auto half = backward(in, du, dx, before, 0, count / 2);
  half = backward(in, du, half.dx, half.da, count / 2, count);
  check(std::string(c.name) + ", backward in two groups", same_bits(half.dx, found.dx) && same_bits(half.da, found.da));
}

int main() {
  begin("lora");
  test_draw();
  for (const Case& c : CASES) {
    Inputs in(c);
    test_forward(in);
    test_mask(in);
    test_backward(in);
  }
  return end();
}
