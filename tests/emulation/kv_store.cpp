// New keys and values into blocks, and whole sequences out of them, against plain loops.
#include "rows.h"

#include "../../src/ops/kv_store/kernels.cu"

constexpr int LAYERS = 3;

struct Sizes {
  int kv_heads, d, width;
};

// A sequence's blocks, filled with what no store may touch.
struct Cache {
  std::vector<std::unique_ptr<emu::Array<bf16>>> blocks;
  Sizes s;
  Cache(Sizes s, int count) : s(s) {
    for (int i = 0; i < count; i++) {
      blocks.push_back(
          std::make_unique<emu::Array<bf16>>(normals_bf16((size_t)LAYERS * 2 * s.kv_heads * BLOCK * s.width)));
    }
  }
  bf16* slot(int token) const { return blocks[token / BLOCK]->data() + token % BLOCK * s.width; }
  size_t at(int layer, int half, int head) const {
    return (((size_t)layer * 2 + half) * s.kv_heads + head) * BLOCK * s.width;
  }
  std::vector<std::vector<bf16>> values() const {
    std::vector<std::vector<bf16>> all;
    for (auto& block : blocks) all.push_back(block->values());
    return all;
  }
};

template <typename T, typename Store>
static void test(const char* type, Store kernel, Sizes s, size_t offset) {
  auto [kv_heads, d, width] = s;
  int h = kv_heads, channels = d, w = width, layer = 1;
  std::string name = std::string(type) + ", " + std::to_string(h) + " x " + std::to_string(d) + " of " +
                     std::to_string(w) + (offset ? ", not aligned" : "");
  // Two sequences: tokens 60 to 64 of the one, 0 to 2 of the other.
  Cache one(s, 2), two(s, 1);
  std::vector<std::pair<Cache*, int>> tokens;
  for (int token = 60; token < 65; token++) tokens.push_back({&one, token});
  for (int token = 0; token < 3; token++) tokens.push_back({&two, token});
  size_t row = (size_t)h * d, n = tokens.size() * row;
  Row<T> k(n, Normals(), offset), v(n, Normals(), offset);
  std::vector<std::vector<bf16>> expected[2] = {one.values(), two.values()};
  std::vector<bf16*> addresses;
  for (size_t i = 0; i < tokens.size(); i++) {
    auto [cache, token] = tokens[i];
    addresses.push_back(cache->slot(token));
    for (int half = 0; half < 2; half++)
      for (int head = 0; head < h; head++)
        for (int c = 0; c < d; c++)
          expected[cache == &two][token / BLOCK][cache->at(layer, half, head) + token % BLOCK * w + c] =
              to_bf16((float)(half ? v : k).wide(i * row + head * d + c));
  }
  emu::Array<bf16*> slots(addresses);
  size_t before = one.at(layer, 0, 0);
  emu::launch(dim3(tokens.size(), 2), dim3(64), 0,
              [&] { kernel(k.data(), v.data(), slots.data(), h, channels, w, before); });
  bool stored = true;
  for (size_t i = 0; i < 2; i++) stored &= same_bits(one.values()[i], expected[0][i]);
  check(name + ", stored", stored && same_bits(two.values()[0], expected[1][0]));

  // All of both, one behind the other.
  std::vector<const bf16*> sources;
  for (int token = 0; token < 65; token++) sources.push_back(one.slot(token));
  for (int token = 0; token < 3; token++) sources.push_back(two.slot(token));
  emu::Array<const bf16*> from(sources);
  Row<bf16> all_k(sources.size() * row, offset), all_v(sources.size() * row, offset);
  emu::launch(dim3(sources.size(), 2), dim3(64), 0,
              [&] { kv_gather(all_k.data(), all_v.data(), from.data(), h, channels, w, before); });
  bool gathered = true;
  for (size_t i = 0; i < sources.size(); i++)
    for (int half = 0; half < 2; half++)
      for (int head = 0; head < h; head++)
        for (int c = 0; c < d; c++)
          gathered &= (half ? all_v : all_k).wide(i * row + head * d + c) ==
                      to_float(sources[i][one.at(layer, half, head) + c]);
  check(name + ", gathered", gathered);
}

int main() {
  begin("kv_store");
  for (Sizes s : {Sizes{3, 64, 64}, Sizes{8, 128, 128}, Sizes{2, 16, 64}, Sizes{2, 10, 64}, Sizes{1, 80, 128}})
    for (size_t offset : {0, 1}) {
      test<float>("f32", kv_store_f32, s, offset);
      test<bf16>("bf16", kv_store_bf16, s, offset);
    }
  return end();
}
