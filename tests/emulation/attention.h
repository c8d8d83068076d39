// Attention in f64, and as a plain computation in bf16: what enters a product (probabilities, scores' gradients) and
// what leaves the function is rounded to bf16, all else exact. (PyTorch without a fused kernel rounds the scores as
// well.) The kernels may be twice as far from the first as the second is.
#pragma once
#include "check.h"

#include "../../src/ops/attention/tile.cuh"

struct Shape {
  int heads, kv_heads, d;
};

// Lengths of each sequence's queries and keys.
struct Case {
  const char* name;
  Shape shape;
  std::vector<int> q, kv;
};

inline std::vector<uint32_t> offsets_of(const std::vector<int>& lengths) {
  std::vector<uint32_t> offsets = {0};
  for (int length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

inline std::vector<Case> cases() {
  // EMU_LONG=1: the length of the longest record alone, which takes some minutes.
  if (getenv("EMU_LONG")) return {{"7424, d 128", {1, 1, 128}, {7424}, {7424}}};
  return {
      {"1 token", {3, 3, 64}, {1}, {1}},
      {"1 token, d 128", {4, 1, 128}, {1}, {1}},
      {"63", {1, 1, 64}, {63}, {63}},
      {"64, 3 heads a kv head", {3, 1, 64}, {64}, {64}},
      {"65, 9/3 heads (SmolLM2)", {9, 3, 64}, {65}, {65}},
      {"65, 8/2 heads, d 128", {8, 2, 128}, {65}, {65}},
      {"127, 128, 129, d 128", {4, 1, 128}, {127, 128, 129}, {127, 128, 129}},
      {"1, 63, 0, 64, 65, 200: six sequences", {3, 1, 64}, {1, 63, 0, 64, 65, 200}, {1, 63, 0, 64, 65, 200}},
      {"1, 63, 64, 65, 200, d 128", {8, 2, 128}, {1, 63, 64, 65, 200}, {1, 63, 64, 65, 200}},
      {"after a prefix", {3, 1, 64}, {9, 1, 0, 70, 64, 3}, {75, 130, 20, 70, 129, 257}},
      {"after a prefix, d 128", {4, 1, 128}, {130, 1, 5, 64}, {203, 64, 69, 193}},
      {"450", {3, 1, 64}, {450}, {450}},
      {"450, 4 heads a kv head, d 128", {4, 1, 128}, {450}, {450}},
      {"70, 32/8 heads, d 128 (Llama 8B)", {32, 8, 128}, {70}, {70}},
  };
}

struct Inputs {
  std::vector<bf16> q, k, v, dout;
  std::vector<uint32_t> q_offsets, kv_offsets;
  int tq, tk;
  float scale;
  explicit Inputs(const Case& c) : q_offsets(offsets_of(c.q)), kv_offsets(offsets_of(c.kv)) {
    tq = q_offsets.back(), tk = kv_offsets.back(), scale = 1.0f / sqrtf((float)c.shape.d);
    q = normals_bf16((size_t)tq * c.shape.heads * c.shape.d, 2.0f);
    k = normals_bf16((size_t)tk * c.shape.kv_heads * c.shape.d);
    v = normals_bf16((size_t)tk * c.shape.kv_heads * c.shape.d);
    dout = normals_bf16(q.size());
  }
};

struct Results {
  std::vector<double> out, lse, dq, dk, dv;
};

// Forward and backward, with `round` where bf16 rounds.
template <typename Round>
inline Results attention(const Case& c, const Inputs& in, bool gradients, Round round) {
  auto [heads, kv_heads, d] = c.shape;
  auto q = widened(in.q), k = widened(in.k), v = widened(in.v), dout = widened(in.dout);
  Results r;
  r.out.resize(q.size()), r.lse.resize((size_t)heads * in.tq);
  if (gradients) r.dq.resize(q.size()), r.dk.resize(k.size()), r.dv.resize(v.size());
  for (size_t s = 0; s < c.q.size(); s++)
    for (int h = 0; h < heads; h++) {
      int n = c.q[s], m = c.kv[s], kv_head = h / (heads / kv_heads);
      auto row = [&](std::vector<double>& x, size_t token, int head, int of) { return &x[((token * of) + head) * d]; };
      std::vector<double> head_dk((size_t)m * d), head_dv((size_t)m * d), p(m);
      for (int i = 0; i < n; i++) {
        size_t token = in.q_offsets[s] + i;
        int sees = m - n + i + 1;
        double *query = row(q, token, h, heads), top = -INFINITY, sum = 0;
        auto key = [&](int j) { return row(k, in.kv_offsets[s] + j, kv_head, kv_heads); };
        auto value = [&](int j) { return row(v, in.kv_offsets[s] + j, kv_head, kv_heads); };
        auto dot = [&](const double* a, const double* b) {
          double x = 0;
          for (int e = 0; e < d; e++) x += a[e] * b[e];
          return x;
        };
        for (int j = 0; j < sees; j++) p[j] = dot(query, key(j)) * in.scale, top = std::max(top, p[j]);
        for (int j = 0; j < sees; j++) sum += exp(p[j] - top);
        r.lse[(size_t)h * in.tq + token] = top + log(sum);
        for (int j = 0; j < sees; j++) p[j] = exp(p[j] - top) / sum;
        double* out = row(r.out, token, h, heads);
        for (int j = 0; j < sees; j++) for (int e = 0; e < d; e++) out[e] += round(p[j]) * value(j)[e];
        for (int e = 0; e < d; e++) out[e] = round(out[e]);
        if (!gradients) continue;
        double *dy = row(dout, token, h, heads), *dquery = row(r.dq, token, h, heads), delta = dot(dy, out);
        for (int j = 0; j < sees; j++) {
          double ds = round(p[j] * (dot(dy, value(j)) - delta)) * in.scale, rounded_p = round(p[j]);
          for (int e = 0; e < d; e++) {
            dquery[e] += ds * key(j)[e];
            head_dk[(size_t)j * d + e] += ds * query[e];
            head_dv[(size_t)j * d + e] += rounded_p * dy[e];
          }
        }
        for (int e = 0; e < d; e++) dquery[e] = round(dquery[e]);
      }
      for (int j = 0; gradients && j < m; j++)
        for (int e = 0; e < d; e++) {
          row(r.dk, in.kv_offsets[s] + j, kv_head, kv_heads)[e] += round(head_dk[(size_t)j * d + e]);
          row(r.dv, in.kv_offsets[s] + j, kv_head, kv_heads)[e] += round(head_dv[(size_t)j * d + e]);
        }
    }
  for (auto x : {&r.dk, &r.dv}) for (auto& e : *x) e = round(e);
  return r;
}

inline double exactly(double x) { return x; }

// `ours` may be twice as far from `exact` as `plain` is (and, where that is exact, some f32 roundings away).
inline bool close(const std::string& test, const std::vector<double>& ours, const std::vector<double>& exact,
                  const std::vector<double>& plain) {
  Error e = error(ours, exact), bound = error(plain, exact);
  double worst = 2 * bound.worst + 1e-5, mean = 2 * bound.mean + 1e-6;
  return check(test, e.worst <= worst && e.mean <= mean, "greatest error %.1e (%.2f of bound), mean %.1e (%.2f)",
               e.worst, e.worst / worst, e.mean, e.mean / mean);
}

struct Outputs {
  std::vector<bf16> out;
  std::vector<float> lse;
};

// Runs a forward kernel: src/ops/attention/forward.cu's, or one launched as it is but for its threads and `more` shared
// memory.
template <typename Kernel>
inline Outputs run_forward(Kernel kernel64, Kernel kernel128, const Case& c, const Inputs& in, int threads = 128,
                           size_t more = 0) {
  auto [heads, kv_heads, d] = c.shape;
  emu::Array<bf16> q(in.q), k(in.k), v(in.v), out(in.q.size());
  emu::Array<float> lse((size_t)heads * in.tq);
  emu::Array<uint32_t> q_offsets(in.q_offsets), kv_offsets(in.kv_offsets);
  int longest = *std::max_element(c.q.begin(), c.q.end());
  auto kernel = d == 64 ? kernel64 : kernel128;
  emu::launch(dim3(heads, (longest + 127) / 128, c.q.size()), dim3(threads), (128 + 64 + 64) * d * 2 + more,
              [&, heads = heads, kv_heads = kv_heads] {
    kernel(q.data(), k.data(), v.data(), out.data(), lse.data(), q_offsets.data(), kv_offsets.data(), heads, kv_heads,
           in.tq, in.scale * LOG2_E);
  });
  return {out.values(), lse.values()};
}

// All cases through `run(case, inputs)`.
template <typename Run>
inline void test_forward(Run run) {
  for (const Case& c : cases()) {
    Inputs in(c);
    Outputs ours = run(c, in), again = run(c, in);
    Results exact = attention(c, in, false, exactly), plain = attention(c, in, false, rounded);
    close(std::string(c.name) + ", out", widened(ours.out), exact.out, plain.out);
    double lse = error(std::vector<double>(ours.lse.begin(), ours.lse.end()), exact.lse).worst;
    check(std::string(c.name) + ", lse", lse <= 1e-5, "greatest error %.1e", lse);
    check(std::string(c.name) + ", again", same_bits(ours.out, again.out) && same_bits(ours.lse, again.lse));
  }
  // A prompt read in two parts has the bits of the prompt read at once.
  Case whole = {"", {4, 1, 128}, {150}, {150}}, tail = {"", {4, 1, 128}, {37}, {150}};
  Inputs in(whole), part(tail);
  size_t row = 4 * 128, from = (150 - 37) * row;
  part.q.assign(in.q.begin() + from, in.q.end()), part.k = in.k, part.v = in.v;
  Outputs all = run(whole, in);
  check("the tail of a prompt after its prefix, same bits",
        same_bits(run(tail, part).out, std::vector<bf16>(all.out.begin() + from, all.out.end())));
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
}

struct Gradients {
  std::vector<bf16> dq, dk, dv;
};

// Runs delta and a backward kernel of one pass: src/ops/attention/backward_80.cu's or backward_90.cu's, which takes
// `queries` at a time and `shared` memory.
template <typename Delta, typename Kernel>
inline Gradients run_one_pass(Delta delta64, Delta delta128, Kernel kernel64, Kernel kernel128, int queries,
                              size_t shared, const Case& c, const Inputs& in, const Outputs& forward) {
  auto [heads, kv_heads, d] = c.shape;
  int h = heads, g = kv_heads;
  emu::Array<bf16> q(in.q), k(in.k), v(in.v), out(forward.out), dout(in.dout);
  emu::Array<bf16> dq(in.q.size()), dk(in.k.size()), dv(in.v.size());
  emu::Array<float> lse(forward.lse), delta(lse.size());
  emu::Array<uint32_t> q_offsets(in.q_offsets), kv_offsets(in.kv_offsets);
  unsigned sequences = c.q.size(), blocks = (*std::max_element(c.kv.begin(), c.kv.end()) + 127) / 128;
  size_t tiles = (size_t)h * (in.tq / queries + sequences);
  emu::Array<float4> partial(tiles * queries * d / 4);
  emu::Array<uint32_t> turns(std::vector<uint32_t>(1 + tiles));
  auto delta_kernel = d == 64 ? delta64 : delta128;
  auto kernel = d == 64 ? kernel64 : kernel128;
  emu::launch(dim3(h, (in.tq + 7) / 8), dim3(256), 0, [&] {
    delta_kernel(out.data(), dout.data(), delta.data(), h, in.tq);
  });
  emu::launch(dim3(g, sequences, blocks), dim3(256), shared, [&] {
    kernel(q.data(), k.data(), v.data(), dout.data(), lse.data(), delta.data(), dq.data(), dk.data(), dv.data(),
           partial.data(), turns.data(), q_offsets.data(), kv_offsets.data(), h, g, in.tq, in.scale * LOG2_E);
  });
  return {dq.values(), dk.values(), dv.values()};
}

// All cases through `backward(case, inputs, forward(case, inputs))`.
template <typename Forward, typename Backward>
inline void test_backward(Forward forward, Backward backward) {
  for (const Case& c : cases()) {
    Inputs in(c);
    Outputs saved = forward(c, in);
    Gradients ours = backward(c, in, saved), again = backward(c, in, saved);
    Results exact = attention(c, in, true, exactly), plain = attention(c, in, true, rounded);
    std::string name = c.name;
    close(name + ", dq", widened(ours.dq), exact.dq, plain.dq);
    close(name + ", dk", widened(ours.dk), exact.dk, plain.dk);
    close(name + ", dv", widened(ours.dv), exact.dv, plain.dv);
    bool same = same_bits(ours.dq, again.dq) && same_bits(ours.dk, again.dk) && same_bits(ours.dv, again.dv);
    check(name + ", again", same);
  }
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
}
