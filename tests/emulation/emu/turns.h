// Blocks in turn (src/ops/cuda/turns.cuh). Blocks run one after another here, so a turn has come or never will; but
// what a block wrote is there for others only if it was passed on behind a barrier, and a thread reads it only behind a
// wait and a barrier: else there are NaNs.
#pragma once
#include <unordered_map>

#include "fibers.h"

namespace emu {
struct Event {
  unsigned thread, barriers;
};
inline bool ordered(Event before) { return before.barriers < barriers || before.thread == current; }

struct Written {
  float4 *to, value;
  Event by;
};
// What this block wrote and has not passed on; the turns it has waited for.
inline std::vector<Written> written;
inline std::unordered_map<const uint32_t*, Event> waited;
// The turn with which a place was passed on last.
inline std::unordered_map<const float4*, const uint32_t*> passed_with;
}  // namespace emu

static inline uint32_t ticket(uint32_t* counter) {
  if (*counter == 0) emu::passed_with.clear();
  return (*counter)++;
}
static inline uint32_t turn_peek(const uint32_t* turn) { return *turn; }
static inline void turn_wait(const uint32_t* turn, uint32_t mine, uint32_t) {
  if (*turn != mine) emu::stop("a turn that never comes, or is over");
  emu::waited[turn] = {emu::current, emu::barriers};
}
static inline void turn_pass(uint32_t* turn, uint32_t next) {
  if (*turn + 1 != next) emu::stop("a turn passed on by a block that has it not");
  *turn = next;
  for (const emu::Written& w : emu::written)
    if (emu::ordered(w.by)) *w.to = w.value, emu::passed_with[w.to] = turn;
  emu::written.clear();
}
static inline void turn_prefetch(const void* from) { (void)*(const volatile char*)from; }
static inline float4 turn_load(const float4* from) {
  float4 value = *from;
  auto turn = emu::passed_with.find(from);
  auto wait = turn == emu::passed_with.end() ? emu::waited.end() : emu::waited.find(turn->second);
  if (wait == emu::waited.end() || !emu::ordered(wait->second)) memset(&value, emu::POISON, sizeof value);
  return value;
}
static inline void turn_store(float4* to, float4 value) {
  emu::written.push_back({to, value, {emu::current, emu::barriers}});
}
