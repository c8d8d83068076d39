// Attention's forward kernel against f64.
#include "attention.h"
#include "../../src/ops/attention/forward.cu"

int main() {
  begin("attention forward");
  test_forward([](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_d64, attention_forward_d128, c, in);
  });
  return end();
}
