// What the two decode kernels share: where a row's keys lie and how they are cut.
#pragma once
#include "tile.cuh"

// Tokens of a block of the cache, `(layers, 2, kv_heads, BLOCK, D)`: in each layer keys, then values, those of a head
// side by side.
constexpr int BLOCK = 64;

// A row's blocks are `blocks[first]` and those after it, as many as hold `length` tokens.
struct Row {
  uint32_t first, length;
};

// Keys a thread block takes: whole blocks, cut at the row's own positions, whoever shares them or the batch.
constexpr int CHUNK = 256;

// A chunk of rows that have its blocks in common: `members[first]` up to the next item's first.
struct Item {
  uint32_t chunk, first;
};
