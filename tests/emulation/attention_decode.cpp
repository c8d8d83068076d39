// Decode attention over segments against f64.
#include "attention.h"
#include "../../src/ops/attention/decode.cuh"
namespace decode_file {
#include "../../src/ops/attention/decode.cu"
}
namespace join_file {
#include "../../src/ops/attention/decode_join.cu"
}
using namespace decode_file;
using namespace join_file;

// A run of keys in a buffer with room for more (which holds NaNs), `before` elements into it.
struct Piece {
  emu::Array<bf16> k, v;
  int length;
  Piece(Shape s, int length, int capacity, size_t before)
      : k(before + (size_t)capacity * s.kv_heads * s.d), v(before + (size_t)capacity * s.kv_heads * s.d), length(length) {
    for (auto x : {&k, &v}) {
      auto values = normals_bf16((size_t)length * s.kv_heads * s.d);
      std::copy(values.begin(), values.end(), x->data() + before);
    }
  }
};
using Row = std::vector<const Piece*>;

static std::vector<bf16> run(Shape s, const std::vector<bf16>& queries, const std::vector<Row>& rows, size_t before) {
  auto [heads, kv_heads, d] = s;
  int h = heads, g = kv_heads;
  std::vector<Segment> segments;
  std::vector<uint32_t> ranges = {0};
  uint32_t longest = 0;
  for (const Row& row : rows) {
    uint32_t start = 0;
    for (const Piece* piece : row) {
      segments.push_back({piece->k.data(), piece->v.data(), start, (uint32_t)piece->length});
      start += piece->length;
    }
    longest = std::max(longest, start);
    ranges.push_back(segments.size());
  }
  unsigned n = rows.size(), chunks = (longest + CHUNK - 1) / CHUNK;
  emu::Array<bf16> q(queries), out(queries.size());
  emu::Array<Segment> table(segments);
  emu::Array<uint32_t> of_row(ranges);
  emu::Array<float> o((size_t)n * heads * chunks * d);
  emu::Array<float2> ml((size_t)n * heads * chunks);
  float log2_scale = LOG2_E / sqrtf((float)d);
  bool narrow = d == 64;
  auto decode = narrow ? attention_decode_d64 : attention_decode_d128;
  auto join = narrow ? attention_decode_join_d64 : attention_decode_join_d128;
  size_t memory = 4 * 4 * 16 * d * 2 + CHUNK * 16 + 2 * 4 * 16 * 4;
  emu::launch(dim3(n, g, chunks), dim3(128), memory,
              [&] { decode(q.data(), table.data(), of_row.data(), o.data(), ml.data(), h, g, (long long)before, log2_scale); });
  emu::launch(dim3(h, n), dim3(d), 0, [&] { join(o.data(), ml.data(), table.data(), of_row.data(), out.data(), h, chunks); });
  return out.values();
}

// Each row as a sequence of one query that sees all its keys.
static void against_reference(const std::string& name, Shape s, const std::vector<bf16>& q, const std::vector<Row>& rows, size_t before,
                              const std::vector<bf16>& ours) {
  Case c = {"", s, {}, {}};
  std::vector<bf16> k, v;
  for (const Row& row : rows) {
    int length = 0;
    for (const Piece* p : row) {
      size_t n = (size_t)p->length * s.kv_heads * s.d;
      k.insert(k.end(), p->k.data() + before, p->k.data() + before + n);
      v.insert(v.end(), p->v.data() + before, p->v.data() + before + n);
      length += p->length;
    }
    c.q.push_back(1), c.kv.push_back(length);
  }
  Inputs in(c);
  in.q = q, in.k = k, in.v = v;
  close(name, widened(ours), attention(c, in, false, exactly).out, attention(c, in, false, rounded).out);
}

int main() {
  begin("attention decode");
  for (Shape s : {Shape{9, 3, 64}, Shape{8, 2, 128}, Shape{1, 1, 64}, Shape{3, 3, 128}, Shape{16, 1, 128}, Shape{10, 1, 64}}) {
    std::string name = std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " heads, d " + std::to_string(s.d);
    size_t before = s.heads % 2 * 40 * s.d, row_size = (size_t)s.heads * s.d;
    Piece prefix(s, 300, 320, before), one(s, 1, 64, before), tail63(s, 63, 64, before), tail64(s, 64, 64, before);
    Piece nothing(s, 0, 64, before), tail65(s, 65, 100, before), whole(s, 513, 513, before), tail180(s, 180, 200, before);
    std::vector<Row> rows = {{&prefix, &one}, {&one}, {&tail63}, {&tail64}, {&tail65}, {&whole}, {&prefix, &tail180}, {&prefix},
                             {&nothing, &tail63, &nothing}, {&prefix, &nothing}, {&tail64, &tail64, &tail63, &one, &tail180}};
    auto q = normals_bf16(rows.size() * row_size, 2.0f);
    auto ours = run(s, q, rows, before);
    against_reference(name, s, q, rows, before, ours);
    check(name + ", again", same_bits(ours, run(s, q, rows, before)));
    bool alone = true;
    for (size_t i = 0; i < rows.size(); i++) {
      std::vector<bf16> query(q.begin() + i * row_size, q.begin() + (i + 1) * row_size);
      alone &= same_bits(run(s, query, {rows[i]}, before),
                         std::vector<bf16>(ours.begin() + i * row_size, ours.begin() + (i + 1) * row_size));
    }
    check(name + ", each row alone has the same bits", alone);

    // The same keys in one piece and in blocks of 16, 23 of them and a part of one.
    Piece long_one(s, 380, 380, before);
    std::vector<std::unique_ptr<Piece>> blocks;
    Row paged;
    for (int first = 0; first < 380; first += 16) {
      blocks.push_back(std::make_unique<Piece>(s, std::min(16, 380 - first), 16, before));
      Piece& block = *blocks.back();
      size_t from = before + (size_t)first * s.kv_heads * s.d, n = (size_t)block.length * s.kv_heads * s.d;
      std::copy(long_one.k.data() + from, long_one.k.data() + from + n, block.k.data() + before);
      std::copy(long_one.v.data() + from, long_one.v.data() + from + n, block.v.data() + before);
      paged.push_back(&block);
    }
    auto query = normals_bf16(row_size, 2.0f);
    check(name + ", in blocks of 16 the same bits", same_bits(run(s, query, {{&long_one}}, before), run(s, query, {paged}, before)));
  }
  check("no bank conflicts", emu::bank_conflicts == 0, "%llu", (unsigned long long)emu::bank_conflicts);
  return end();
}
