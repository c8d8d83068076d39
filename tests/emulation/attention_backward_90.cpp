// Attention's backward kernel for Hopper, behind forward and delta, against the derivatives in f64.
#include "attention.h"
#include "../../src/ops/attention/one_pass.cuh"
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
  size_t shared = (2 * 128 + 4 * 64) * c.shape.d * 2 + 128 * 64 * 2 + 4 * 64 * 4 + 16 + 1024;
  return run_one_pass(attention_backward_delta_d64, attention_backward_delta_d128, attention_backward_90_d64,
                      attention_backward_90_d128, 64, shared, c, in, forward);
}

int main() {
  begin("attention backward, Hopper");
  test_backward([](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_90_d64, attention_forward_90_d128, c, in, 256, 1024);
  }, run);
  return end();
}
