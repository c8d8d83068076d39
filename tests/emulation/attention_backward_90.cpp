// Attention's backward kernel for Hopper, behind forward and delta, against the derivatives in f64.
#include "attention.h"
#include "../../src/ops/attention/panels.cuh"

// Each file has its own tile sizes.
namespace forward_file {
#include "../../src/ops/attention/forward_90.cu"
}
namespace delta_file {
#include "../../src/ops/attention/backward_delta.cu"
}
namespace backward_file {
#include "../../src/ops/attention/backward_90.cu"
}
using namespace forward_file;
using namespace delta_file;
using namespace backward_file;

static Gradients run(const Case& c, const Inputs& in, const Outputs& forward) {
  auto [heads, kv_heads, d] = c.shape;
  int h = heads, g = kv_heads;
  emu::Array<bf16> q(in.q), k(in.k), v(in.v), out(forward.out), dout(in.dout);
  emu::Array<bf16> dq(in.q.size()), dk(in.k.size()), dv(in.v.size());
  emu::Array<float> lse(forward.lse), delta(lse.size());
  emu::Array<uint32_t> q_offsets(in.q_offsets), kv_offsets(in.kv_offsets);
  unsigned sequences = c.q.size(), blocks = (*std::max_element(c.kv.begin(), c.kv.end()) + 127) / 128;
  size_t tiles = (size_t)h * (in.tq / 64 + sequences);
  emu::Array<float4> partial(tiles * 16 * d);
  emu::Array<uint32_t> turns(std::vector<uint32_t>(1 + tiles));
  auto delta_kernel = d == 64 ? attention_backward_delta_d64 : attention_backward_delta_d128;
  auto kernel = d == 64 ? attention_backward_90_d64 : attention_backward_90_d128;
  emu::launch(dim3(h, (in.tq + 7) / 8), dim3(256), 0, [&] {
    delta_kernel(out.data(), dout.data(), delta.data(), h, in.tq);
  });
  size_t shared = (2 * 128 + 4 * 64) * d * 2 + 128 * 64 * 2 + 4 * 64 * 4 + 16 + 1024;
  emu::launch(dim3(g, sequences, blocks), dim3(256), shared, [&] {
    kernel(q.data(), k.data(), v.data(), dout.data(), lse.data(), delta.data(), dq.data(), dk.data(), dv.data(),
           partial.data(), turns.data(), q_offsets.data(), kv_offsets.data(), h, g, in.tq, in.scale * LOG2_E);
  });
  return {dq.values(), dk.values(), dv.values()};
}

int main() {
  begin("attention backward, Hopper");
  test_backward([](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_90_d64, attention_forward_90_d128, c, in, 256, 1024);
  }, run);
  return end();
}
