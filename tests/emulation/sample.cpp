// Sampling against the rule as it is written: exponentials in f64 of the C library, a sort, a running sum.
#include "rows.h"

#include "../../src/ops/sample/kernels.cu"

#include <numeric>

constexpr double UNIT = 1099511627776.0;  // 2^40

// The token of src/ops/sample/mod.rs; `listed` says whether the kernel's list can hold its nucleus.
static uint32_t expected(const std::vector<double>& logits, const Draw& draw, bool& listed) {
  size_t n = logits.size();
  double best = -INFINITY;
  uint32_t first = FOR_HOST;
  for (size_t i = 0; i < n; i++)
    if (logits[i] > best) best = logits[i], first = i;
  listed = std::isfinite(best);
  if (!listed) return FOR_HOST;
  if (draw.temperature <= 0) return first;
  std::vector<uint64_t> weights(n);
  for (size_t i = 0; i < n; i++)
    if (!std::isnan(logits[i]))
      weights[i] = (uint64_t)llround(UNIT * exp((double)(float)(logits[i] - best) / draw.temperature));
  uint64_t total = std::accumulate(weights.begin(), weights.end(), (uint64_t)0);
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  size_t kept = n;
  if (draw.top_p < 1) {
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return weights[a] > weights[b]; });
    uint64_t mass = 0;
    for (kept = 0; kept == 0 || (kept < n && (long double)mass < (long double)draw.top_p * total); kept++)
      mass += weights[order[kept]];
    total = mass;
    size_t heavy = std::count_if(weights.begin(), weights.end(), [](uint64_t w) { return w >= HEAVY; });
    listed = heavy <= (size_t)LISTED && weights[order[kept - 1]] >= HEAVY;
  }
  uint64_t target = (uint64_t)(((unsigned __int128)total * (draw.word >> 8)) >> 24), sum = 0;
  for (size_t i = 0; i < kept; i++) {
    sum += weights[order[i]];
    if (sum > target) return order[i];
  }
  return FOR_HOST;
}

// Rows of logits in steps of `step` (ties), each with its own draw; some NaN and -inf among them.
template <typename T, typename Kernel>
static void test(const char* type, Kernel kernel, int threads, int vocab, double temperature, double top_p,
                 float step) {
  int rows = 6;
  Row<T> logits((size_t)rows * vocab);
  std::vector<Draw> draws;
  for (int row = 0; row < rows; row++) {
    for (int i = 0; i < vocab; i++) {
      unsigned kind = generator() % 50;
      float x = roundf(normal() * 3 / step) * step;
      put(logits.data() + (size_t)row * vocab + i, i == row % vocab ? x : kind == 0 ? NAN : kind == 1 ? -INFINITY : x);
    }
    uint32_t word = row == 0 ? 0 : row == 1 ? 0xffffffffu : (uint32_t)generator();
    draws.push_back({temperature, top_p, word});
  }
  emu::Array<Draw> with(draws);
  emu::Array<uint32_t> chosen(rows);
  emu::launch(dim3(rows), dim3(threads), 0, [&] { kernel(logits.data(), with.data(), chosen.data(), vocab); });
  int wrong = 0, left = 0;
  std::vector<double> all = logits.all();
  for (int row = 0; row < rows; row++) {
    bool listed;
    std::vector<double> values(all.begin() + (size_t)row * vocab, all.begin() + (size_t)(row + 1) * vocab);
    uint32_t id = expected(values, draws[row], listed);
    wrong += chosen[row] != (listed ? id : FOR_HOST), left += !listed;
  }
  char name[100];
  snprintf(name, sizeof name, "%s, %d threads, %d tokens, temperature %g, top_p %g", type, threads, vocab, temperature,
           top_p);
  check(name, wrong == 0, "%d of %d wrong, %d left to the host", wrong, rows, left);
}

// One row of f32 logits.
static uint32_t one(const std::vector<float>& values, Draw draw) {
  emu::Array<float> logits(values);
  emu::Array<Draw> with(std::vector<Draw>{draw});
  emu::Array<uint32_t> chosen(1);
  emu::launch(dim3(1), dim3(96), 0, [&] { sample_f32(logits.data(), with.data(), chosen.data(), values.size()); });
  return chosen[0];
}

static void test_edges() {
  for (double temperature : {0.0, 1.0})
    for (double top_p : {0.5, 1.0}) {
      Draw draw = {temperature, top_p, 0x80000000u};
      std::string name = "temperature " + std::to_string(temperature) + ", top_p " + std::to_string(top_p);
      check(name + ", nothing but NaN", one(std::vector<float>(70, NAN), draw) == FOR_HOST);
      check(name + ", nothing but -inf", one(std::vector<float>(70, -INFINITY), draw) == FOR_HOST);
      std::vector<float> infinite(70, 1.0f);
      infinite[66] = INFINITY;
      check(name + ", an infinite logit", one(infinite, draw) == FOR_HOST);
      check(name + ", one token", one({-3.0f}, draw) == 0);
    }
  // 100 equals, of which a tenth is kept: 10, or 11 by the rounding of a tenth; the last target falls on the last of
  // them.
  check("the lowest of equals, greedy", one(std::vector<float>(100, 2.0f), {0, 1, 0}) == 0);
  check("the lowest of equals, first", one(std::vector<float>(100, 2.0f), {1, 0.1, 0}) == 0);
  uint32_t last = one(std::vector<float>(100, 2.0f), {1, 0.1, 0xffffffffu});
  check("the lowest of equals, last", last == 9 || last == 10, "%u", last);
  check("all of equals, last", one(std::vector<float>(100, 2.0f), {1, 1, 0xffffffffu}) == 99);
  check("more equals than are listed", one(std::vector<float>(LISTED + 1, 2.0f), {1, 0.1, 0}) == FOR_HOST);
  check("as many equals as are listed", one(std::vector<float>(LISTED, 2.0f), {1, 0.999, 0xffffffffu}) == LISTED - 2);
}

// The same number is asked of src/ops/sample/weights.rs; and a weight is the exponential to one unit.
static void test_weights() {
  uint64_t mixed = 0;
  double worst = 0;
  for (uint64_t i = 0; i < 1100; i++) {
    float logit = -(float)i / 37.0f;
    uint64_t w = weight(logit, 0.0f, 0.7);
    mixed = mixed * 31 + ((i + 1) ^ w);
    worst = std::max(worst, fabs((double)w - UNIT * exp((double)logit / 0.7)));
  }
  check("weights to one unit", worst < 0.52, "%.3f", worst);
  check("weights are the CPU's", mixed == 7922635230830503934ull, "%llu", (unsigned long long)mixed);
}

int main() {
  begin("sample");
  test_weights();
  test_edges();
  for (int vocab : {1, 2, 7, 63, 64, 65, 1003, 4099})
    for (auto [temperature, top_p] : std::vector<std::pair<double, double>>{
             {0, 1}, {0.7, 1}, {5, 1}, {0.7, 0.5}, {1, 0.9}, {0.3, 0.999}, {5, 0.95}}) {
      test<float>("f32", sample_f32, 96, vocab, temperature, top_p, 0.25f);
      test<bf16>("bf16", sample_bf16, 64, vocab, temperature, top_p, 0.25f);
      test<float>("f32, no ties", sample_f32, 1024, vocab, temperature, top_p, 1e-5f);
    }
  for (double top_p : {1.0, 0.9}) {
    test<bf16>("bf16", sample_bf16, 1024, 128256, 0.5, top_p, 0.25f);
    test<float>("f32", sample_f32, 1024, 49153, 1.0, top_p, 1e-5f);
  }
  return end();
}
