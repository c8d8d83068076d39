// Hopper's matrix products of a warpgroup (4 warps; sm_90a only), for nvcc and for the emulation: PTX ISA 9.7.15.
//
// Operands in shared memory lie in panels of 64 columns: rows of 128 bytes whose 16-byte chunks are swapped by the row
// (chunk c of row r where c ^ (r % 8) would lie), 8 rows to 1,024 bytes, from an address that 1,024 divides. That is
// "128-byte swizzling".
#pragma once
#include "compat.cuh"

// Describes an operand that begins at `address`. By rows (its rows are the product's m or n): 8 rows are 1,024 bytes
// on. Transposed (its columns are m or n, its rows k): so are 8 rows, and the next 64 columns are `panel` bytes on.
__device__ __forceinline__ uint64_t descriptor(shared_t address, uint32_t panel) {
#ifdef CUDA_EMU
  emu::wgmma_panel = panel;
  return address;
#else
  return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
#endif
}

#ifndef CUDA_EMU
// What ordinary writes (and cp.async) put into shared memory is seen by the matrix unit.
__device__ __forceinline__ void wgmma_see_shared() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
// Keeps the compiler from moving what reads or writes c over this place.
template <int N>
__device__ __forceinline__ void wgmma_pin(float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])::"memory");
}
// Registers written before are seen by the products that follow, into c.
template <int N>
__device__ __forceinline__ void wgmma_begin(float (&c)[N][4]) {
  wgmma_pin(c);
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
// Closes the group of products that were begun since the last one.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
// All but the LEFT youngest groups have been computed, among them what goes into c: it may be read, and its operands
// overwritten.
template <int LEFT, int N>
__device__ __forceinline__ void wgmma_wait(float (&c)[N][4]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(LEFT) : "memory");
  wgmma_pin(c);
}
// The products since the last wait have been computed.
template <int N>
__device__ __forceinline__ void wgmma_end(float (&c)[N][4]) {
  wgmma_commit();
  wgmma_wait<0>(c);
}

// Sets two neighbouring elements of an operand.
__device__ __forceinline__ void wgmma_operand(bf16* at, uint32_t pair) { *reinterpret_cast<uint32_t*>(at) = pair; }

#define F4(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define F16_OF(c, i) F4(c, i), F4(c, i + 1), F4(c, i + 2), F4(c, i + 3)
#define F32_OF(c, i) F16_OF(c, i), F16_OF(c, i + 4)
#define R32                                                                                                      \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
  "%30,%31"
#define R64                                                                                                      \
  R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
      "%58,%59,%60,%61,%62,%63"

// c (64, 64) += a (64, 16; shared) . b (its 64 rows; shared). A warp has rows 16 w.. of c, a lane what it has of mma's.
__device__ __forceinline__ void wgmma_rows(float (&c)[8][4], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 1, 1, 1, 0, 0;\n"
               : F32_OF(c, 0)
               : "l"(a), "l"(b));
}
// The same, whatever c was.
__device__ __forceinline__ void wgmma_rows_first(float (&c)[8][4], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 0, 1, 1, 0, 0;\n"
               : F32_OF(c, 0)
               : "l"(a), "l"(b));
}
// c (64, 64) += a^T (16 rows of 64 columns; shared) . b (16 rows of 64 columns; shared).
__device__ __forceinline__ void wgmma_columns(float (&c)[8][4], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, %32, %33, 1, 1, 1, 1, 1;\n"
               : F32_OF(c, 0)
               : "l"(a), "l"(b));
}
// c (64, D) += a (64, 16; registers, as mma's a) . b (16 rows of D columns; shared).
__device__ __forceinline__ void wgmma_tile(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" R32 "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;\n"
               : F32_OF(c, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_tile(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" R64 "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"
               : F32_OF(c, 0), F32_OF(c, 8)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef F4
#undef F16_OF
#undef F32_OF
#undef R32
#undef R64
#endif
