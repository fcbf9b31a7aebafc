// The fibres behind shim.h: blocks, warps and threads of a kernel on one CPU core (x86-64 System V).
//
// Of a grid's blocks some are resident, all their fibres alive at once; the next block starts when
// one ends. A fibre runs until it cannot go on; then the next of its warp does, then the next warp,
// then the next block: ascending or descending, so that what was forgotten to be waited for is not
// there in one of the two orders. A mistake ends the launch with a message.
#include "shim.h"

#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <x86intrin.h>

namespace shim {
namespace {

// An odd number of cache lines, or all stacks would share the same few sets of the cache.
constexpr size_t STACK_BYTES = 1033 * 64, GUARD_BYTES = 256;
// A signalling NaN as a double and, the first word, as a float: arithmetic on it gives NaN of other
// bits, so that also a write of what was read shows.
constexpr unsigned POISON[2] = {0x7fa5a5a5u, 0x7ff5a5a5u};
constexpr unsigned CANARY = 0x57acca9eu;
constexpr int MOST_THREADS = 1024, MOST_RESIDENT = 64;
constexpr int MOST_IDLE_ROUNDS = 1000;    // in which fibres only spun
constexpr int MOST_SECONDS = 60;           // of a launch, which ends a spin that does not pause

enum State : unsigned char { READY, AT_WARP, AT_BLOCK, PAUSED, DONE };

struct Copy {
  void *shared;
  const void *global;
  int bytes, filled, group;
};

struct Copies {
  Copy *list;
  int count, capacity, group;
};

struct Thread {
  void *stack;
  Place place;
  State state;
  Site site;
  unsigned mask;
  void *argument;
  int any, all;
  Copies copies;
};

struct Block {
  bool active;
  unsigned char *memory;   // between two guards
  unsigned char *stacks;
  Thread *threads;
  unsigned arrived[MOST_THREADS / 32];
  Thread *first_waiting;
  int waiting, finished, any, all;
};

struct Launch {
  void (*kernel)(void **);
  void **arguments;
  uint3 grid, block_size;
  size_t shared;
  bool descending, together;
  int threads;
  long long blocks, started;
  bool progress;
};

Launch launch;
Block blocks[MOST_RESIDENT];
Block *current_block;
Thread *current;
void *scheduler;
char message[1024];
bool failed;

extern "C" void shim_switch(void **save, void *to);
asm(R"(
.text
.hidden shim_switch
.globl shim_switch
shim_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi); movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");

void suspend(State state) {
  current->state = state;
  shim_switch(&current->stack, scheduler);
}

unsigned linear(const uint3 &index, const uint3 &size) {
  return index.x + size.x * (index.y + size.y * index.z);
}

int number(const Thread *thread) { return (int)linear(thread->place.thread, launch.block_size); }

// What a thread does instead of going on.
const char *spelt(const Thread *thread, char *text, size_t size) {
  const Site &site = thread->site;
  if (thread->state == DONE) return "has finished";
  snprintf(text, size, "waits in %s at line %d (%s)", site.operation, site.line, site.function);
  return text;
}

bool same_site(const Site &a, const Site &b) {
  return a.line == b.line &&
         (a.operation == b.operation || strcmp(a.operation, b.operation) == 0);
}

void set_message(const Thread *thread, const char *text) {
  if (failed) return;
  failed = true;
  const uint3 &block = thread->place.block;
  snprintf(message, sizeof message, "block (%u, %u, %u), thread %d: %s", block.x, block.y, block.z,
           number(thread), text);
}

// ---- a thread's life ----

void run_thread() {
  launch.kernel(launch.arguments);
  if (current->copies.count)
    shim_fail("ends with %d copies that were never waited for", current->copies.count);
  ++current_block->finished;
  if (current_block->waiting) {
    char text[256];
    const Thread *other = current_block->first_waiting;
    shim_fail("ends while thread %d %s", number(other), spelt(other, text, sizeof text));
  }
  launch.progress = true;
  suspend(DONE);
}

void start_thread(Thread &thread, unsigned char *stack, const Place &place) {
  *(unsigned *)stack = CANARY;
  void **top = (void **)(stack + STACK_BYTES - 64);
  *--top = nullptr;   // where run_thread would return to: keeps its stack aligned
  *--top = (void *)run_thread;
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  thread.stack = top;
  thread.place = place;
  thread.state = READY;
  thread.copies.count = thread.copies.group = 0;
}

// ---- blocks ----

void poison(unsigned char *memory, size_t bytes) {
  for (; bytes >= sizeof POISON; bytes -= sizeof POISON, memory += sizeof POISON)
    memcpy(memory, POISON, sizeof POISON);
  memcpy(memory, POISON, bytes);
}

bool is_poison(const unsigned char *memory, size_t bytes) {
  for (; bytes; bytes -= sizeof POISON, memory += sizeof POISON)
    if (memcmp(memory, POISON, sizeof POISON)) return false;
  return true;
}

uint3 spread(long long index, const uint3 &size) {
  return {(unsigned)(index % size.x), (unsigned)(index / size.x % size.y),
          (unsigned)(index / size.x / size.y)};
}

void start_block(Block &block) {
  const long long turn = launch.started++;
  const long long index = launch.descending ? launch.blocks - 1 - turn : turn;
  block.active = true;
  block.waiting = block.finished = 0;
  poison(block.memory - GUARD_BYTES, launch.shared + 2 * GUARD_BYTES);
  memset(block.arrived, 0, sizeof block.arrived);
  for (int i = 0; i < launch.threads; ++i)
    start_thread(block.threads[i], block.stacks + i * STACK_BYTES,
                 {spread(i, launch.block_size), spread(index, launch.grid), launch.block_size,
                  launch.grid});
}

void finish_block(Block &block) {
  block.active = false;
  for (int i = 0; i < launch.threads; ++i)
    if (*(unsigned *)(block.stacks + i * STACK_BYTES) != CANARY)
      set_message(&block.threads[i], "overflowed its stack");
  if (!is_poison(block.memory - GUARD_BYTES, GUARD_BYTES))
    set_message(block.threads, "the block wrote before its shared memory");
  if (!is_poison(block.memory + launch.shared, GUARD_BYTES)) {
    char text[128];
    snprintf(text, sizeof text, "the block wrote behind its %zu bytes of shared memory",
             launch.shared);
    set_message(block.threads, text);
  }
}

// ---- who runs when ----

// Runs the fibres of a warp until none can go on without others.
bool run_warp(Block &block, int first) {
  const int lanes = launch.threads - first < 32 ? launch.threads - first : 32;
  bool ran = false;
  for (bool again = true; again && !failed;) {
    again = false;
    for (int i = 0; i < lanes && !failed; ++i) {
      Thread &thread = block.threads[first + (launch.descending ? lanes - 1 - i : i)];
      if (thread.state != READY) continue;
      current = &thread;
      shim_place = &thread.place;
      shim_switch(&scheduler, thread.stack);
      current = nullptr;
      ran = again = true;
    }
  }
  return ran;
}

// Runs the warps of a block until none can go on without other blocks.
void run_block(Block &block) {
  current_block = &block;
  const int warps = (launch.threads + 31) / 32;
  for (bool again = true; again && !failed;) {
    again = false;
    for (int i = 0; i < warps && !failed; ++i)
      again |= run_warp(block, 32 * (launch.descending ? warps - 1 - i : i));
  }
}

// A lane that waits for one that cannot come any more, unless somebody still spins.
void find_deadlock(Block &block) {
  for (int i = 0; i < launch.threads; ++i) {
    const Thread &thread = block.threads[i];
    if (thread.state != AT_WARP) continue;
    for (int lane = 0; lane < 32; ++lane) {
      const Thread &other = block.threads[i / 32 * 32 + lane];
      if (!(thread.mask >> lane & 1) || other.state == PAUSED ||
          (other.state == AT_WARP && same_site(other.site, thread.site) &&
           other.mask == thread.mask))
        continue;
      char own[256], its[256], text[640];
      snprintf(text, sizeof text, "%s with mask %08x, but thread %d %s",
               spelt(&thread, own, sizeof own), thread.mask, number(&other),
               spelt(&other, its, sizeof its));
      set_message(&thread, text);
      return;
    }
  }
}

void give_up(int resident) {
  for (int slot = 0; slot < resident; ++slot)
    for (int i = 0; blocks[slot].active && i < launch.threads; ++i) {
      const Thread &thread = blocks[slot].threads[i];
      if (thread.state != PAUSED) continue;
      char own[256], text[512];
      snprintf(text, sizeof text, "deadlock: %s for what never comes; %d of %lld blocks are resident",
               spelt(&thread, own, sizeof own), resident, launch.blocks);
      set_message(&thread, text);
      return;
    }
}

void run_grid(int resident) {
  int idle = 0;
  for (int slot = 0; slot < resident; ++slot) start_block(blocks[slot]);
  for (bool alive = true; alive && !failed;) {
    alive = false;
    launch.progress = false;
    for (int slot = 0; slot < resident && !failed; ++slot) {
      Block &block = blocks[slot];
      if (!block.active) continue;
      for (int i = 0; i < launch.threads; ++i)
        if (block.threads[i].state == PAUSED) block.threads[i].state = READY;
      run_block(block);
      if (failed) break;
      if (block.finished == launch.threads) {
        finish_block(block);
        if (launch.started < launch.blocks) start_block(block);
      } else {
        find_deadlock(block);
      }
      alive |= block.active;
    }
    idle = launch.progress ? 0 : idle + 1;
    if (alive && !failed && idle > MOST_IDLE_ROUNDS) give_up(resident);
  }
}

// ---- faults ----

struct sigaction usual_fault, usual_bus, usual_timer;
const void *fault_address;
int fault_signal;

void land() {
  if (fault_signal == SIGVTALRM)
    shim_fail("ran for %d s: does a loop wait without pause_thread()?", MOST_SECONDS);
  shim_fail("touched the address %p, where nothing is", fault_address);
}

// Ends the fibre that did it, by going on in `land` where the fault was.
void on_fault(int signal, siginfo_t *info, void *context) {
  if (!current && signal == SIGVTALRM) return;
  if (!current) {   // not ours: it comes again, to whom it came before
    sigaction(SIGSEGV, &usual_fault, nullptr);
    sigaction(SIGBUS, &usual_bus, nullptr);
    return;
  }
  fault_signal = signal;
  fault_address = info->si_addr;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  registers[REG_RSP] = ((registers[REG_RSP] - 256) & ~(greg_t)15) - 8;
  registers[REG_RIP] = (greg_t)(intptr_t)land;
}

void catch_faults() {
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &usual_fault);
  sigaction(SIGBUS, &action, &usual_bus);
  sigaction(SIGVTALRM, &action, &usual_timer);
  const itimerval limit = {{1, 0}, {MOST_SECONDS, 0}};
  setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}

void release_faults() {
  const itimerval none = {};
  setitimer(ITIMER_VIRTUAL, &none, nullptr);
  sigaction(SIGSEGV, &usual_fault, nullptr);
  sigaction(SIGBUS, &usual_bus, nullptr);
  sigaction(SIGVTALRM, &usual_timer, nullptr);
}

// Gives the first `resident` blocks stacks, which they keep.
bool take_stacks(int resident) {
  for (int slot = 0; slot < resident; ++slot) {
    Block &block = blocks[slot];
    if (block.stacks) continue;
    void *memory = mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block.threads = (Thread *)calloc(MOST_THREADS, sizeof(Thread));
    if (memory == MAP_FAILED || !block.threads) return false;
    block.stacks = (unsigned char *)memory;
  }
  return true;
}

}  // namespace

// ---- what kernels call ----

extern "C" {

const Place *shim_place;

unsigned char *shim_block_memory() { return current_block->memory; }

void shim_fail(const char *format, ...) {
  char text[768];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  set_message(current, text);
  for (;;) suspend(DONE);
}

void shim_meet_block(Site site, int predicate, int *any, int *all) {
  Block &block = *current_block;
  current->site = site;
  char text[256];
  if (block.finished)
    for (int i = 0; i < launch.threads; ++i)
      if (block.threads[i].state == DONE)
        shim_fail("is in %s at line %d (%s), but thread %d %s", site.operation, site.line,
                  site.function, i, spelt(&block.threads[i], text, sizeof text));
  if (block.waiting == 0) {
    block.first_waiting = current;
    block.any = 0;
    block.all = 1;
  } else if (!same_site(site, block.first_waiting->site)) {
    const Thread *other = block.first_waiting;
    shim_fail("is in %s at line %d (%s), but thread %d %s", site.operation, site.line,
              site.function, number(other), spelt(other, text, sizeof text));
  }
  block.any |= predicate != 0;
  block.all &= predicate != 0;
  if (++block.waiting == launch.threads) {
    block.waiting = 0;
    launch.progress = true;
    for (int i = 0; i < launch.threads; ++i) {
      block.threads[i].state = READY;
      block.threads[i].any = block.any;
      block.threads[i].all = block.all;
    }
    suspend(READY);   // the order says who goes on first, not who came last
  } else {
    suspend(AT_BLOCK);
  }
  *any = current->any;
  *all = current->all;
}

void shim_meet_warp(Site site, unsigned mask, void *argument, Settle settle) {
  Block &block = *current_block;
  const int own = number(current), lane = own % 32;
  Thread *warp = block.threads + (own - lane);
  const int lanes = launch.threads - (own - lane);
  if (!(mask >> lane & 1))
    shim_fail("is in %s at line %d (%s) but not in its mask %08x", site.operation, site.line,
              site.function, mask);
  if (lanes < 32 && mask >> lanes)
    shim_fail("%s at line %d (%s): the mask %08x names lanes that the warp of %d lacks",
              site.operation, site.line, site.function, mask, lanes);
  current->site = site;
  current->mask = mask;
  current->argument = argument;
  unsigned &arrived = block.arrived[own / 32];
  arrived |= 1u << lane;
  if ((arrived & mask) != mask) {
    suspend(AT_WARP);
    return;
  }
  void *arguments[32] = {};
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    if (!same_site(warp[i].site, site) || warp[i].mask != mask) {
      char text[256];
      shim_fail("is in %s at line %d (%s) with mask %08x, but thread %d %s with mask %08x",
                site.operation, site.line, site.function, mask, number(&warp[i]),
                spelt(&warp[i], text, sizeof text), warp[i].mask);
    }
    arguments[i] = warp[i].argument;
  }
  settle(arguments, mask);
  arrived &= ~mask;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) warp[i].state = READY;
  suspend(READY);
}

void shim_pause(Site site) {
  current->site = site;
  if (!launch.together && launch.blocks > 1)
    shim_fail("waits in %s at line %d (%s) in a launch that is not cooperative", site.operation,
              site.line, site.function);
  suspend(PAUSED);
}

void shim_copy(void *shared, const void *global, int bytes, int filled) {
  const Block &block = *current_block;
  const unsigned char *first = (unsigned char *)shared;
  if (first < block.memory || first + bytes > block.memory + launch.shared)
    shim_fail("copy_async_%d writes outside the block's shared memory", bytes);
  if ((uintptr_t)shared % bytes || (filled && (uintptr_t)global % bytes))
    shim_fail("copy_async_%d needs addresses that are multiples of %d, got %p and %p", bytes, bytes,
              shared, global);
  if (filled < 0 || filled > bytes)
    shim_fail("copy_async_%d fills 0 to %d bytes, got %d", bytes, bytes, filled);
  Copies &copies = current->copies;
  if (copies.count == copies.capacity) {
    copies.capacity = 2 * copies.capacity + 16;
    copies.list = (Copy *)realloc(copies.list, copies.capacity * sizeof(Copy));
    if (!copies.list) abort();
  }
  copies.list[copies.count++] = {shared, global, bytes, filled, copies.group};
  poison((unsigned char *)shared, bytes);
}

void shim_commit_copies() { ++current->copies.group; }

void shim_wait_copies(int groups) {
  Copies &copies = current->copies;
  int left = 0;
  for (int i = 0; i < copies.count; ++i) {
    const Copy copy = copies.list[i];
    if (copy.group >= copies.group - groups) {
      copies.list[left++] = copy;
      continue;
    }
    if (copy.filled) memcpy(copy.shared, copy.global, copy.filled);
    memset((char *)copy.shared + copy.filled, 0, copy.bytes - copy.filled);
  }
  copies.count = left;
}

// ---- what the compiler's checks call ----

struct SourceLocation {
  const char *file;
  unsigned line, column;
};

#define SHIM_CHECK(name, text)                                       \
  void __ubsan_handle_##name##_abort(const SourceLocation *where) {  \
    shim_fail("%s at line %u", text, where->line);                   \
  }
SHIM_CHECK(out_of_bounds, "index outside an array")
SHIM_CHECK(divrem_overflow, "division of integers by zero or beyond their range")
SHIM_CHECK(shift_out_of_bounds, "shift by more bits than there are")
SHIM_CHECK(add_overflow, "sum beyond the range of its integers")
SHIM_CHECK(sub_overflow, "difference beyond the range of its integers")
SHIM_CHECK(mul_overflow, "product beyond the range of its integers")
SHIM_CHECK(negate_overflow, "negation beyond the range of its integers")
SHIM_CHECK(load_invalid_value, "bool that is neither true nor false")
SHIM_CHECK(builtin_unreachable, "place that cannot be reached")
void __ubsan_handle_missing_return(const SourceLocation *where) {
  shim_fail("function without a return at line %u", where->line);
}
void __ubsan_handle_type_mismatch_v1_abort(const SourceLocation *where, uintptr_t address) {
  shim_fail(address ? "misaligned address %p at line %u" : "null address %p at line %u",
            (void *)address, where->line);
}

// ---- what Python calls ----

// Runs a kernel; returns nullptr, or what went wrong.
const char *shim_launch(void (*kernel)(void **), void **arguments, const unsigned *grid,
                        const unsigned *block, size_t shared, int resident, int descending,
                        int together) {
  launch = {};
  launch.kernel = kernel;
  launch.arguments = arguments;
  launch.grid = {grid[0], grid[1], grid[2]};
  launch.block_size = {block[0], block[1], block[2]};
  launch.shared = shared;
  launch.descending = descending;
  launch.together = together;
  launch.threads = (int)(block[0] * block[1] * block[2]);
  launch.blocks = (long long)grid[0] * grid[1] * grid[2];
  failed = false;
  if (resident > MOST_RESIDENT) resident = MOST_RESIDENT;
  if (resident > launch.blocks) resident = (int)launch.blocks;
  if (!take_stacks(resident)) return "no memory for the stacks of the fibres";
  const size_t each = (shared + 2 * GUARD_BYTES + 1023) / 1024 * 1024;
  unsigned char *memory = (unsigned char *)aligned_alloc(1024, each * resident);
  if (!memory) return "no memory for the shared memory of the blocks";
  for (int slot = 0; slot < resident; ++slot)
    blocks[slot].memory = memory + slot * each + GUARD_BYTES;
  catch_faults();
  run_grid(resident);
  release_faults();
  free(memory);
  return failed ? message : nullptr;
}

}  // extern "C"
}  // namespace shim

long long clock64() { return (long long)__rdtsc(); }
