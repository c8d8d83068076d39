// Attention's backward kernel of one pass for every card, behind forward and delta, against the derivatives in f64.
#include "attention.h"
#include "../../src/ops/attention/one_pass.cuh"

// Each file has its own tile sizes.
namespace forward_file {
#include "../../src/ops/attention/forward.cu"
}
namespace delta_file {
#include "../../src/ops/attention/backward_delta.cu"
}
namespace backward_file {
#include "../../src/ops/attention/backward_80.cu"
}
using namespace forward_file;
using namespace delta_file;
using namespace backward_file;

static Gradients run(const Case& c, const Inputs& in, const Outputs& forward) {
  int d = c.shape.d, queries = 4096 / d;
  size_t shared = (2 * 128 + 3 * queries) * d * 2 + 128 * queries * 2 + 4 * queries * 4 + 16;
  return run_one_pass(attention_backward_delta_d64, attention_backward_delta_d128, attention_backward_80_d64,
                      attention_backward_80_d128, queries, shared, c, in, forward);
}

int main() {
  begin("attention backward, one pass");
  test_backward([](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_d64, attention_forward_d128, c, in);
  }, run);
  return end();
}
