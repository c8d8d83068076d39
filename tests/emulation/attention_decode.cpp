// Decode attention over the blocks of a cache against f64; rows that share blocks against the same rows alone.
#include <map>

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
  size_t row = (((size_t)layer * 2 + half) * s.kv_heads + head) * BLOCK + token % BLOCK;
  return sequence.blocks[token / BLOCK]->all.data() + row * s.d;
}

// The full blocks of `shared`, up to `length`, and random keys and values in blocks of its own behind them.
static Sequence sequence(Shape s, int layer, int length, const Sequence& shared = {}) {
  Sequence made;
  made.length = length;
  int full = std::min(shared.length, length) / BLOCK;
  for (int i = 0; i * BLOCK < length; i++)
    made.blocks.push_back(i < full ? shared.blocks[i] : std::make_shared<Block>(s));
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

// The items of a step as src/ops/attention/shared.rs plans them, with at most `most` rows.
struct Items {
  std::vector<Item> items;
  std::vector<uint32_t> members;
  Items(const std::vector<Sequence>& sequences, int chunks, size_t most) {
    for (int chunk = 0; chunk < chunks; chunk++) {
      std::vector<std::vector<uint32_t>> groups;
      std::map<std::vector<const void*>, size_t> open;
      for (size_t row = 0; row < sequences.size(); row++) {
        const Sequence& sequence = sequences[row];
        size_t first = chunk * (CHUNK / BLOCK), last = std::min(first + CHUNK / BLOCK, sequence.blocks.size());
        if (first >= last) continue;
        // Besides the blocks, how many keys they hold.
        std::vector<const void*> same = {(const void*)(size_t)std::min(CHUNK, sequence.length - chunk * CHUNK)};
        for (size_t i = first; i < last; i++) same.push_back(sequence.blocks[i].get());
        auto found = open.find(same);
        if (found == open.end() || groups[found->second].size() == most) {
          open[same] = groups.size();
          groups.push_back({});
        }
        groups[open[same]].push_back(row);
      }
      for (auto& group : groups) {
        items.push_back({(uint32_t)chunk, (uint32_t)members.size()});
        members.insert(members.end(), group.begin(), group.end());
      }
    }
    items.push_back({0, (uint32_t)members.size()});
  }
};

// Rows of an item of the shared kernel; of 0, the kernel that takes each row alone.
static std::vector<bf16> run(Shape s, int layer, const std::vector<bf16>& queries,
                             const std::vector<Sequence>& sequences, size_t most = 0) {
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
  int n = sequences.size(), chunks = (longest + CHUNK - 1) / CHUNK;
  emu::Array<bf16> q(queries), out(queries.size());
  emu::Array<Row> rows(of_rows);
  emu::Array<const bf16*> blocks(addresses);
  emu::Array<float> o((size_t)n * heads * chunks * d);
  emu::Array<float2> ml((size_t)n * heads * chunks);
  float log2_scale = LOG2_E / sqrtf((float)d);
  long long offset = (long long)layer * 2 * kv_heads * BLOCK * d;
  bool narrow = d == 64;
  // Whole 128 bytes, so that what ends before a guarded page begins where tiles may.
  int tiles = most ? 2 : 1;
  size_t memory = (4 * 4 * 16 * d * 2 + CHUNK / BLOCK * 8 + tiles * 16 * (4 + 2 * 4 * 4) + 127) / 128 * 128;
  if (most) {
    Items plan(sequences, chunks, most);
    emu::Array<Item> items(plan.items);
    emu::Array<uint32_t> members(plan.members);
    auto decode = narrow ? attention_decode_shared_d64 : attention_decode_shared_d128;
    emu::launch(dim3(items.size() - 1, g), dim3(128), memory, [&] {
      decode(q.data(), rows.data(), blocks.data(), items.data(), members.data(), chunks, o.data(), ml.data(), h, g,
             offset, log2_scale);
    });
  } else {
    auto decode = narrow ? attention_decode_d64 : attention_decode_d128;
    emu::launch(dim3(n, g, chunks), dim3(128), memory, [&] {
      decode(q.data(), rows.data(), blocks.data(), o.data(), ml.data(), h, g, offset, log2_scale);
    });
  }
  auto merge = narrow ? attention_decode_merge_d64 : attention_decode_merge_d128;
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

// Each row has the bits that it has alone, in blocks of its own: in the shared kernel, in items of at most `most` rows.
static void in_company(const std::string& name, Shape s, int layer, const std::vector<bf16>& q,
                       const std::vector<Sequence>& rows, const std::vector<bf16>& alone) {
  size_t most = 32 / (s.heads / s.kv_heads);
  for (size_t n : {most, std::max<size_t>(1, most / 2), (size_t)1})
    check(name + ", items of up to " + std::to_string(n), same_bits(run(s, layer, q, rows, n), alone));
}

// Rows whose blocks are those of one prompt, up to where each has its own.
static void samples(Shape s, int layer, size_t count) {
  Sequence prompts[] = {sequence(s, layer, 300), sequence(s, layer, 400), sequence(s, layer, 20)};
  std::vector<Sequence> rows;
  // The second prompt's full blocks end in mid-chunk; of the first there are copies, last block and all, and one that
  // does not see its last key.
  for (size_t i = 0; rows.size() < count; i++) {
    rows.push_back(sequence(s, layer, 300 + 5 * (i % 3), prompts[0]));
    rows.push_back(prompts[0]);
    if (i % 4 == 1) rows.back().length--;
    if (i % 2 == 0) rows.push_back(sequence(s, layer, 401 + i, prompts[1]));
    if (i % 3 == 0) rows.push_back(prompts[2]);
  }
  rows.resize(count);
  auto q = normals_bf16(count * s.heads * s.d, 2.0f);
  std::string name = std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads, d " + std::to_string(s.d);
  in_company(name + ", " + std::to_string(count) + " rows of three prompts", s, layer, q, rows, run(s, layer, q, rows));
}

int main() {
  begin("attention decode");
  Shape shapes[] = {{9, 3, 64}, {8, 2, 128}, {1, 1, 64}, {3, 3, 128}, {16, 1, 128}, {10, 1, 64}};
  for (Shape s : shapes) {
    std::string name = std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads, d " + std::to_string(s.d);
    int layer = s.heads % 2;
    size_t row_size = (size_t)s.heads * s.d;
    // Some rows share the full blocks of a prompt of 300 tokens.
    Sequence prompt = sequence(s, layer, 300);
    std::vector<Sequence> rows = {sequence(s, layer, 301, prompt), prompt, sequence(s, layer, 480, prompt),
                                  sequence(s, layer, 256, prompt)};
    for (int length : {1, 15, 63, 64, 65, 255, 257, 513}) rows.push_back(sequence(s, layer, length));
    auto q = normals_bf16(rows.size() * row_size, 2.0f);
    auto ours = run(s, layer, q, rows);
    against_reference(name, s, layer, q, rows, ours);
    check(name + ", again", same_bits(ours, run(s, layer, q, rows)));
    bool alone = true;
    for (size_t i = 0; i < rows.size(); i++) {
      std::vector<bf16> query(q.begin() + i * row_size, q.begin() + (i + 1) * row_size);
      std::vector<bf16> out(ours.begin() + i * row_size, ours.begin() + (i + 1) * row_size);
      for (size_t most : {0, 1}) alone &= same_bits(run(s, layer, query, {copy_of(rows[i], s)}, most), out);
    }
    check(name + ", each row alone, in blocks of its own, has the same bits", alone);
    in_company(name, s, layer, q, rows, ours);
  }
  for (size_t count : {1, 2, 7, 10, 32, 33}) samples({3, 1, 64}, 1, count);
  for (Shape s : {Shape{4, 1, 128}, Shape{1, 1, 64}, Shape{9, 1, 64}, Shape{10, 1, 128}, Shape{16, 1, 64}})
    samples(s, 0, 33);
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
  return end();
}
