// Attention's forward kernel against f64.
#include "attention.h"
#include "../../src/ops/attention/forward.cu"

static Outputs run(const Case& c, const Inputs& in) { return run_forward(attention_forward_d64, attention_forward_d128, c, in); }

int main() {
  begin("attention forward");
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
  Outputs all = run(whole, in);
  size_t row = 4 * 128, from = (150 - 37) * row;
  part.q.assign(in.q.begin() + from, in.q.end()), part.k = in.k, part.v = in.v;
  check("the tail of a prompt after its prefix, same bits",
        same_bits(run(tail, part).out, std::vector<bf16>(all.out.begin() + from, all.out.end())));
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
  return end();
}
