// Blocks that add to the same numbers one after another, in an order that does not depend on which comes first: what
// they add up has the same bits in every run. For nvcc; the emulation has functions of the same names
// (tests/emulation/emu/turns.h).
//
// A turn is a counter in global memory, 0 at first. Block n of an order waits until it is n (`turn_wait`, one thread,
// then a barrier), reads and writes the numbers (`turn_load`, `turn_store`), and behind another barrier one thread sets
// it to n + 1 (`turn_pass`). PTX ISA 8.8 to 8.10 (memory consistency): what was written before a barrier is seen by
// whoever, behind a fence, has seen what a thread wrote behind that barrier and a fence.
#pragma once
#include "compat.cuh"

#ifndef CUDA_EMU
// The number of this block in the order in which blocks begin. A block may wait for those of smaller numbers: they hold
// a multiprocessor, so they end. (blockIdx promises no order.) For one thread.
__device__ __forceinline__ uint32_t ticket(uint32_t* counter) { return atomicAdd(counter, 1u); }

// The turn as it is by now, or was a moment ago; the number arrives when it is first used.
__device__ __forceinline__ uint32_t turn_peek(const uint32_t* turn) {
  uint32_t x;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];\n" : "=r"(x) : "l"(turn) : "memory");
  return x;
}
// Waits until it is `mine`; `seen` is what it was when last looked at.
__device__ __forceinline__ void turn_wait(const uint32_t* turn, uint32_t mine, uint32_t seen) {
  while (seen < mine) seen = turn_peek(turn);
  asm volatile("fence.acq_rel.gpu;\n" ::: "memory");
}
__device__ __forceinline__ void turn_pass(uint32_t* turn, uint32_t next) {
  asm volatile("fence.acq_rel.gpu;\n" ::: "memory");
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;\n" ::"l"(turn), "r"(next) : "memory");
}

// Begins to fetch 128 bytes into L2, where everyone's writes are seen.
__device__ __forceinline__ void turn_prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];\n" ::"l"(from));
}
// Past L1, which does not see what other multiprocessors write.
__device__ __forceinline__ float4 turn_load(const float4* from) {
  float4 x;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];\n"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "l"(from)
               : "memory");
  return x;
}
__device__ __forceinline__ void turn_store(float4* to, float4 x) {
  asm volatile("st.global.cg.v4.f32 [%0], {%1,%2,%3,%4};\n" ::"l"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
               : "memory");
}
#endif
