// Attention's forward kernel for Hopper against f64.
#include "attention.h"
#include "../../src/ops/attention/forward_90.cu"

int main() {
  begin("attention forward, Hopper");
  test_forward([](const Case& c, const Inputs& in) {
    return run_forward(attention_forward_90_d64, attention_forward_90_d128, c, in, 256, 1024);
  });
  return end();
}
