// A launch over many arrays: a block takes `per_block` numbers of one of them. `of_block` has each block's array, a
// `Part` its addresses, its number of numbers `count` and its `first_block`.
#pragma once
#include "compat.cuh"

struct Share {
  size_t first, count;
};
// A block's numbers of its array.
template <typename Part>
__device__ __forceinline__ Share share_of_block(const Part& part, int per_block) {
  size_t first = (blockIdx.x - part.first_block) * (size_t)per_block, left = part.count - first;
  return {first, left < (size_t)per_block ? left : (size_t)per_block};
}
