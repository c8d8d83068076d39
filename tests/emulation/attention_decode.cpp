// Decode attention over the blocks of a cache against f64.
#include "attention.h"
#include "../../src/ops/attention/decode.cuh"
namespace decode_file {
#include "../../src/ops/attention/decode.cu"
}
namespace merge_file {
#include "../../src/ops/attention/decode_merge.cu"
}
using namespace decode_file;
using namespace merge_file;

constexpr int LAYERS = 2;

// A block of the cache: NaNs wherever no key or value was put.
struct Block {
  emu::Array<bf16> all;
  explicit Block(Shape s) : all((size_t)LAYERS * 2 * s.kv_heads * BLOCK * s.d) {}
};

// A sequence's keys and values in one layer.
struct Sequence {
  std::vector<std::shared_ptr<Block>> blocks;
  int length = 0;
};

static bf16* place_of(const Sequence& sequence, Shape s, int layer, int half, int head, int token) {
  return sequence.blocks[token / BLOCK]->all.data() + ((((size_t)layer * 2 + half) * s.kv_heads + head) * BLOCK + token % BLOCK) * s.d;
}

// The full blocks of `shared`, up to `length`, and random keys and values in blocks of its own behind them.
static Sequence sequence(Shape s, int layer, int length, const Sequence& shared = {}) {
  Sequence made;
  made.length = length;
  int full = std::min(shared.length, length) / BLOCK;
  for (int i = 0; i * BLOCK < length; i++) made.blocks.push_back(i < full ? shared.blocks[i] : std::make_shared<Block>(s));
  for (int token = full * BLOCK; token < length; token++)
    for (int half = 0; half < 2; half++)
      for (int head = 0; head < s.kv_heads; head++) {
        auto values = normals_bf16(s.d);
        std::copy(values.begin(), values.end(), place_of(made, s, layer, half, head, token));
      }
  return made;
}

// The same in blocks of its own.
static Sequence copy_of(const Sequence& from, Shape s) {
  Sequence to = from;
  for (auto& block : to.blocks) {
    auto own = std::make_shared<Block>(s);
    std::copy(block->all.data(), block->all.data() + block->all.size(), own->all.data());
    block = own;
  }
  return to;
}

static std::vector<bf16> run(Shape s, int layer, const std::vector<bf16>& queries, const std::vector<Sequence>& sequences) {
  auto [heads, kv_heads, d] = s;
  int h = heads, g = kv_heads;
  std::vector<Row> of_rows;
  std::vector<const bf16*> addresses;
  int longest = 0;
  for (const Sequence& sequence : sequences) {
    of_rows.push_back({(uint32_t)addresses.size(), (uint32_t)sequence.length});
    for (auto& block : sequence.blocks) addresses.push_back(block->all.data());
    longest = std::max(longest, sequence.length);
  }
  unsigned n = sequences.size(), chunks = (longest + CHUNK - 1) / CHUNK;
  emu::Array<bf16> q(queries), out(queries.size());
  emu::Array<Row> rows(of_rows);
  emu::Array<const bf16*> blocks(addresses);
  emu::Array<float> o((size_t)n * heads * chunks * d);
  emu::Array<float2> ml((size_t)n * heads * chunks);
  float log2_scale = LOG2_E / sqrtf((float)d);
  long long offset = (long long)layer * 2 * kv_heads * BLOCK * d;
  bool narrow = d == 64;
  auto decode = narrow ? attention_decode_d64 : attention_decode_d128;
  auto merge = narrow ? attention_decode_merge_d64 : attention_decode_merge_d128;
  // Whole 128 bytes, so that what ends before a guarded page begins where tiles may.
  size_t memory = (4 * 4 * 16 * d * 2 + CHUNK / BLOCK * 8 + 2 * 4 * 16 * 4 + 127) / 128 * 128;
  emu::launch(dim3(n, g, chunks), dim3(128), memory,
              [&] { decode(q.data(), rows.data(), blocks.data(), o.data(), ml.data(), h, g, offset, log2_scale); });
  emu::launch(dim3(h, n), dim3(d), 0, [&] { merge(o.data(), ml.data(), rows.data(), out.data(), h, chunks); });
  return out.values();
}

// Each row as a sequence of one query that sees all its keys.
static void against_reference(const std::string& name, Shape s, int layer, const std::vector<bf16>& q,
                              const std::vector<Sequence>& sequences, const std::vector<bf16>& ours) {
  Case c = {"", s, {}, {}};
  std::vector<bf16> kv[2];
  for (const Sequence& sequence : sequences) {
    for (int token = 0; token < sequence.length; token++)
      for (int half = 0; half < 2; half++)
        for (int head = 0; head < s.kv_heads; head++) {
          const bf16* from = place_of(sequence, s, layer, half, head, token);
          kv[half].insert(kv[half].end(), from, from + s.d);
        }
    c.q.push_back(1), c.kv.push_back(sequence.length);
  }
  Inputs in(c);
  in.q = q, in.k = kv[0], in.v = kv[1];
  close(name, widened(ours), attention(c, in, false, exactly).out, attention(c, in, false, rounded).out);
}

int main() {
  begin("attention decode");
  for (Shape s : {Shape{9, 3, 64}, Shape{8, 2, 128}, Shape{1, 1, 64}, Shape{3, 3, 128}, Shape{16, 1, 128}, Shape{10, 1, 64}}) {
    std::string name = std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads, d " + std::to_string(s.d);
    int layer = s.heads % 2;
    size_t row_size = (size_t)s.heads * s.d;
    // Some rows share the full blocks of a prompt of 300 tokens.
    Sequence prompt = sequence(s, layer, 300);
    std::vector<Sequence> rows = {sequence(s, layer, 301, prompt), prompt, sequence(s, layer, 480, prompt), sequence(s, layer, 256, prompt)};
    for (int length : {1, 15, 63, 64, 65, 255, 257, 513}) rows.push_back(sequence(s, layer, length));
    auto q = normals_bf16(rows.size() * row_size, 2.0f);
    auto ours = run(s, layer, q, rows);
    against_reference(name, s, layer, q, rows, ours);
    check(name + ", again", same_bits(ours, run(s, layer, q, rows)));
    bool alone = true;
    for (size_t i = 0; i < rows.size(); i++) {
      std::vector<bf16> query(q.begin() + i * row_size, q.begin() + (i + 1) * row_size);
      alone &= same_bits(run(s, layer, query, {copy_of(rows[i], s)}),
                         std::vector<bf16>(ours.begin() + i * row_size, ours.begin() + (i + 1) * row_size));
    }
    check(name + ", each row alone, in blocks of its own, has the same bits", alone);
  }
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
  return end();
}
