// Attention's three backward kernels against the derivatives in f64.
#include "attention.h"

// Each file has its own tile sizes.
namespace forward_file {
#include "../../src/ops/attention/forward.cu"
}
namespace delta_file {
#include "../../src/ops/attention/backward_delta.cu"
}
namespace kv_file {
#include "../../src/ops/attention/backward_kv.cu"
}
namespace q_file {
#include "../../src/ops/attention/backward_q.cu"
}
using namespace forward_file;
using namespace delta_file;
using namespace kv_file;
using namespace q_file;

// Those of the two kernels; with `less` shared memory, as on a card of 8.6, keys meet 32 queries at a time where a head
// has 128 channels.
static Gradients run(const Case& c, const Inputs& in, const Outputs& forward, bool less) {
  auto [heads, kv_heads, d] = c.shape;
  int h = heads, g = kv_heads;
  emu::Array<bf16> q(in.q), k(in.k), v(in.v), out(forward.out), dout(in.dout);
  emu::Array<bf16> dq(in.q.size()), dk(in.k.size()), dv(in.v.size());
  emu::Array<float> lse(forward.lse), delta(lse.size());
  emu::Array<uint32_t> q_offsets(in.q_offsets), kv_offsets(in.kv_offsets);
  int queries = *std::max_element(c.q.begin(), c.q.end()), keys = *std::max_element(c.kv.begin(), c.kv.end());
  unsigned sequences = c.q.size();
  float log2_scale = in.scale * LOG2_E;
  bool narrow = d == 64;
  auto delta_kernel = narrow ? attention_backward_delta_d64 : attention_backward_delta_d128;
  auto kv_kernel = narrow ? attention_backward_kv_d64
                          : less ? attention_backward_kv_less_d128 : attention_backward_kv_d128;
  auto q_kernel = narrow ? attention_backward_q_d64 : attention_backward_q_d128;
  emu::launch(dim3(h, (in.tq + 7) / 8), dim3(256), 0, [&] {
    delta_kernel(out.data(), dout.data(), delta.data(), h, in.tq);
  });
  int step = less && !narrow ? 32 : 64;
  size_t shared = (2 * 128 + 4 * step) * d * 2 + 4 * step * 4;
  emu::launch(dim3(g, (keys + 127) / 128, sequences), dim3(256), shared, [&] {
    kv_kernel(q.data(), k.data(), v.data(), dout.data(), lse.data(), delta.data(), dk.data(), dv.data(),
              q_offsets.data(), kv_offsets.data(), h, g, in.tq, log2_scale);
  });
  emu::launch(dim3(h, (queries + 127) / 128, sequences), dim3(256), 4 * 64 * d * 2, [&] {
    q_kernel(q.data(), k.data(), v.data(), dout.data(), lse.data(), delta.data(), dq.data(), q_offsets.data(),
             kv_offsets.data(), h, g, in.tq, log2_scale);
  });
  return {dq.values(), dk.values(), dv.values()};
}

int main() {
  auto forward = [](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_d64, attention_forward_d128, c, in);
  };
  begin("attention backward");
  test_backward(forward, [](const Case& c, const Inputs& in, const Outputs& saved) {
    return run(c, in, saved, false);
  });
  begin("attention backward, 99 KB");
  test_backward(forward, [](const Case& c, const Inputs& in, const Outputs& saved) {
    return run(c, in, saved, true);
  });
  return end();
}
