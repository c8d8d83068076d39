// The block's threads as fibers: each runs until it must wait for others. A warp runs as far as it can before another
// is looked at, from a warp and in a direction that change with every block, so that a missing barrier shows as wrong
// numbers. A wait that can never end (some threads gone, or waiting for something else) stops the program.
#pragma once
#include <functional>

#include "memory.h"

// Where the switch below is not known (or -DEMU_UCONTEXT), the C library's, which makes a system call each time.
#if !defined(__x86_64__)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif

namespace emu {
#ifndef EMU_UCONTEXT
// Saves the registers that a call must keep, changes stacks, restores.
extern "C" void emu_switch(void** save, void* load);
asm(".pushsection .text\n.weak emu_switch\nemu_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.popsection\n");
struct Context {
  void* sp = nullptr;
  void begin(unsigned char* stack, size_t bytes, void (*f)()) {
    void** top = (void**)(stack + bytes) - 3;  // as a call leaves it: 8 beyond a multiple of 16
    *--top = (void*)f;  // `ret` goes here with the stack as after a call
    for (int i = 0; i < 6; i++) *--top = nullptr;
    sp = top;
  }
};
inline void change(Context& from, Context& to) { emu_switch(&from.sp, to.sp); }
#else
struct Context {
  ucontext_t c;
  void begin(unsigned char* stack, size_t bytes, void (*f)()) {
    getcontext(&c);
    c.uc_stack.ss_sp = stack;
    c.uc_stack.ss_size = bytes;
    c.uc_link = nullptr;
    makecontext(&c, f, 0);
  }
};
inline void change(Context& from, Context& to) { swapcontext(&from.c, &to.c); }
#endif

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int bytes;
  bool valid;
};

struct Thread {
  Context context;
  dim3 index;
  // Copies under way, oldest first, and how many of them each closed group has.
  std::vector<Copy> copies;
  std::vector<size_t> groups;
  size_t ungrouped;
  // Words of shared memory that it wrote and wgmma does not see yet.
  std::vector<uint32_t> unseen;
};

// What a lane brings to an operation of its warp, and takes from it.
struct Lane {
  uint32_t a[6];
  float c[4];
  const void* p;
  int operation;
  uint32_t result[4];
  float sums[4];
};

struct Warp {
  uint32_t all, runnable, at_operation, at_barrier, done;
  Lane lanes[32];
};

constexpr size_t STACK = 128 << 10, MOST_THREADS = 1024;

inline Thread threads[MOST_THREADS];
inline Warp warps[MOST_THREADS / 32];
inline Context outside;
inline unsigned current, count, warp_count, barrier_arrived;
// Barriers that the block is past.
inline unsigned barriers;
inline bool backwards;
inline dim3 block_index, block_size, grid_size;
inline std::function<void()> body;
inline unsigned char* stacks;
inline Guarded* shared;
inline size_t shared_bytes;
inline uint64_t order = 0x9e3779b97f4a7c15ull;
inline uint64_t bank_conflicts;

[[noreturn]] inline void stop(const char* what) {
  fprintf(stderr, "EMU: %s (block %u %u %u, thread %u)\n", what, block_index.x, block_index.y, block_index.z, current);
  _exit(3);
}

// Goes on with another thread that can run: of this warp, else of the next.
inline void run_another() {
  unsigned from = current, w = current / 32;
  for (unsigned i = 0; i <= warp_count; i++) {
    if (uint32_t can = warps[w].runnable) {
      unsigned lane = i == 0 ? current % 32 : 0;
      uint32_t later = can & ~((2u << lane) - 1);
      current = w * 32 + __builtin_ctz(later ? later : can);
      if (current != from) change(threads[from].context, threads[current].context);
      return;
    }
    w = (w + (backwards ? warp_count - 1 : 1)) % warp_count;
  }
  bool any_left = false;
  for (unsigned i = 0; i < warp_count; i++) any_left |= warps[i].done != warps[i].all;
  if (any_left) stop("threads wait for one another for ever: a barrier or a warp's operation that not all reach");
  change(threads[from].context, outside);
}

inline void thread_main() {
  body();
  Warp& warp = warps[current / 32];
  if (warp.at_operation) stop("a thread ended while its warp waits for it");
  if (!threads[current].copies.empty()) stop("a thread ended before its copies");
  if (barrier_arrived) stop("a thread ended while its block waits at a barrier");
  uint32_t bit = 1u << (current % 32);
  warp.done |= bit;
  warp.runnable &= ~bit;
  run_another();
}

inline void barrier() {
  Warp& warp = warps[current / 32];
  uint32_t bit = 1u << (current % 32);
  if (warp.at_operation) stop("a barrier while the warp waits for this thread elsewhere");
  if (++barrier_arrived == count) {
    barrier_arrived = 0;
    barriers++;
    for (unsigned i = 0; i < warp_count; i++) {
      warps[i].runnable |= warps[i].at_barrier;
      warps[i].at_barrier = 0;
    }
    // Let another warp go first as often as this one.
    warp.runnable |= bit;
    run_another();
    return;
  }
  for (unsigned i = 0; i < warp_count; i++)
    if (warps[i].done) stop("a barrier after a thread has ended");
  warp.at_barrier |= bit;
  warp.runnable &= ~bit;
  run_another();
}

// The lane waits until the whole warp is at the same operation; the last to come carries it out for all.
template <typename F>
inline void together(int operation, F&& carry_out) {
  Warp& warp = warps[current / 32];
  unsigned lane = current % 32;
  warp.lanes[lane].operation = operation;
  warp.at_operation |= 1u << lane;
  if (warp.done || warp.at_barrier) stop("a warp's operation that not all its threads reach");
  if (warp.at_operation != warp.all) {
    warp.runnable &= ~(1u << lane);
    run_another();
    return;
  }
  for (unsigned i = 0; i < 32; i++)
    if ((warp.all >> i & 1) && warp.lanes[i].operation != operation)
      stop("a warp's threads are at different operations");
  carry_out(warp);
  warp.runnable = warp.all;
  warp.at_operation = 0;
}

#ifdef __ELF__
// Every `__shared__` variable lies in one section, which the linker bounds.
extern "C" __attribute__((weak)) unsigned char __start_emu_shared[];
extern "C" __attribute__((weak)) unsigned char __stop_emu_shared[];
#endif

inline void outside_an_array(int, siginfo_t* info, void*) {
  fprintf(stderr, "EMU: address %p is outside every array (block %u %u %u, thread %u)\n", info->si_addr, block_index.x,
          block_index.y, block_index.z, current);
  _exit(3);
}

inline void prepare() {
  static bool done = false;
  if (done) return;
  done = true;
  int how = MAP_PRIVATE | MAP_ANONYMOUS;
  stacks = (unsigned char*)mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, how, -1, 0);
  static unsigned char alternative[64 << 10];
  stack_t stack = {};
  stack.ss_sp = alternative;
  stack.ss_size = sizeof alternative;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = outside_an_array;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

// What the other headers keep of a block.
inline void begin_block();

inline void run_block() {
  order ^= order << 13, order ^= order >> 7, order ^= order << 17;
  backwards = order & 1;
  if (shared_bytes) memset(shared->data(), POISON, shared_bytes);
  if (__start_emu_shared) memset(__start_emu_shared, POISON, __stop_emu_shared - __start_emu_shared);
  barrier_arrived = barriers = 0;
  for (unsigned w = 0; w < warp_count; w++) {
    unsigned lanes = min(32u, count - w * 32);
    uint32_t all = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warps[w].all = warps[w].runnable = all;
    warps[w].at_operation = warps[w].at_barrier = warps[w].done = 0;
  }
  for (unsigned i = 0; i < count; i++) {
    Thread& t = threads[i];
    t.context.begin(stacks + i * STACK, STACK, thread_main);
    t.index = dim3(i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y);
    t.copies.clear();
    t.groups.clear();
    t.ungrouped = 0;
    t.unseen.clear();
  }
  begin_block();
  current = (order >> 8) % warp_count * 32;
  change(outside, threads[current].context);
}

// Runs `kernel` for every block, one after another.
inline void launch(dim3 grid, dim3 block, size_t dynamic_shared, std::function<void()> kernel) {
  prepare();
  Guarded memory(dynamic_shared, 128);
  shared = &memory, shared_bytes = dynamic_shared;
  grid_size = grid, block_size = block, body = std::move(kernel);
  count = block.x * block.y * block.z, warp_count = (count + 31) / 32;
  if (count == 0 || count > MOST_THREADS) stop("a block of no or too many threads");
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        block_index = dim3(x, y, z);
        run_block();
        if (!memory.intact()) stop("written outside shared memory");
      }
}
}  // namespace emu
