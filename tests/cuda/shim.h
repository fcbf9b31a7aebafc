// CUDA C++ on the CPU, for tests: what a kernel's source may use, in terms of fibres.
//
// Every thread of every resident block is a fibre of shim.cpp. It runs until it meets a barrier, a
// warp operation or a spin (`pause_thread`), where the next one goes on. Left out on purpose, so
// that a source which uses it does not compile: `__shared__` variables, float atomics, fast-math
// intrinsics, `min` and `max` of floats (they drop NaN), `__activemask`.
#include <math.h>
#include <stddef.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 {
  unsigned x, y, z;
};
typedef uint3 dim3;

// ---- vectors ----

#define SHIM_VECTOR2(name, type)                                       \
  struct __align__(2 * sizeof(type)) name {                            \
    type x, y;                                                         \
  };                                                                   \
  static inline name make_##name(type x, type y) { return {x, y}; }
#define SHIM_VECTOR4(name, type)                                       \
  struct __align__(16) name {                                          \
    type x, y, z, w;                                                   \
  };                                                                   \
  static inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
SHIM_VECTOR2(float2, float)
SHIM_VECTOR2(double2, double)
SHIM_VECTOR2(int2, int)
SHIM_VECTOR2(uint2, unsigned)
SHIM_VECTOR2(longlong2, long long)
SHIM_VECTOR2(ulonglong2, unsigned long long)
SHIM_VECTOR4(float4, float)
SHIM_VECTOR4(int4, int)
SHIM_VECTOR4(uint4, unsigned)
#undef SHIM_VECTOR2
#undef SHIM_VECTOR4

// ---- what shim.cpp does ----

namespace shim {

// Where a thread is: two threads that should meet must be at the same one.
struct Site {
  const char *operation;
  int line;
  const char *function;
};

struct Place {
  uint3 thread, block, block_size, grid;
};

// What each lane of a warp operation came with, by lane; nullptr outside the mask.
typedef void (*Settle)(void **lanes, unsigned mask);

extern "C" {
extern const Place *shim_place;
unsigned char *shim_block_memory();
void shim_meet_block(Site site, int predicate, int *any, int *all);
void shim_meet_warp(Site site, unsigned mask, void *argument, Settle settle);
void shim_pause(Site site);
[[noreturn]] void shim_fail(const char *format, ...);
void shim_copy(void *shared, const void *global, int bytes, int filled);
void shim_commit_copies();
void shim_wait_copies(int groups);
}

template <typename To, typename From> static inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a reading of bits keeps their number");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

static inline int lane_of(const uint3 &thread, const uint3 &size) {
  return (thread.x + size.x * (thread.y + size.y * thread.z)) % 32;
}

}  // namespace shim

#define threadIdx (shim::shim_place->thread)
#define blockIdx (shim::shim_place->block)
#define blockDim (shim::shim_place->block_size)
#define gridDim (shim::shim_place->grid)
constexpr int warpSize = 32;

// The dynamic shared memory of the block: NaN until written.
static inline unsigned char *block_memory() { return shim::shim_block_memory(); }

// ---- barriers ----

#define SHIM_SITE int line = __builtin_LINE(), const char *function = __builtin_FUNCTION()

static inline void __syncthreads(SHIM_SITE) {
  int any, all;
  shim::shim_meet_block({"__syncthreads", line, function}, 0, &any, &all);
}
static inline int __syncthreads_or(int predicate, SHIM_SITE) {
  int any, all;
  shim::shim_meet_block({"__syncthreads_or", line, function}, predicate, &any, &all);
  return any;
}
static inline int __syncthreads_and(int predicate, SHIM_SITE) {
  int any, all;
  shim::shim_meet_block({"__syncthreads_and", line, function}, predicate, &any, &all);
  return all;
}

// In a loop that waits for other threads: they go on meanwhile.
static inline void pause_thread(SHIM_SITE) { shim::shim_pause({"pause_thread", line, function}); }
static inline void __nanosleep(unsigned, SHIM_SITE) {
  shim::shim_pause({"__nanosleep", line, function});
}
static inline void __threadfence() { asm volatile("" ::: "memory"); }
static inline void __threadfence_block() { asm volatile("" ::: "memory"); }
long long clock64();

// ---- warps ----

namespace shim {

struct Shuffle {
  unsigned long long bits, taken;
  int source;
};

static inline void settle_shuffle(void **lanes, unsigned mask) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    Shuffle *own = (Shuffle *)lanes[lane];
    if (!(mask >> own->source & 1))
      shim_fail("lane %d reads lane %d, which is not in the mask %08x", lane, own->source, mask);
    own->taken = ((Shuffle *)lanes[own->source])->bits;
  }
}

template <typename Value> static inline Value shuffle(Site site, unsigned mask, Value value,
                                                      int source) {
  static_assert(__is_trivially_copyable(Value) && (sizeof(Value) == 4 || sizeof(Value) == 8),
                "lanes exchange numbers of 4 or 8 bytes");
  Shuffle own = {0, 0, source};
  memcpy(&own.bits, &value, sizeof value);
  shim_meet_warp(site, mask, &own, settle_shuffle);
  memcpy(&value, &own.taken, sizeof value);
  return value;
}

struct Vote {
  int predicate;
  unsigned ballot;
};

static inline void settle_vote(void **lanes, unsigned mask) {
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && ((Vote *)lanes[lane])->predicate) ballot |= 1u << lane;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) ((Vote *)lanes[lane])->ballot = ballot;
}

static inline unsigned vote(Site site, unsigned mask, int predicate) {
  Vote own = {predicate, 0};
  shim_meet_warp(site, mask, &own, settle_vote);
  return own.ballot;
}

static inline int own_lane() { return lane_of(shim_place->thread, shim_place->block_size); }

}  // namespace shim

static inline void __syncwarp(unsigned mask = 0xffffffffu, SHIM_SITE) {
  shim::vote({"__syncwarp", line, function}, mask, 0);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, SHIM_SITE) {
  return shim::vote({"__ballot_sync", line, function}, mask, predicate);
}
static inline int __any_sync(unsigned mask, int predicate, SHIM_SITE) {
  return shim::vote({"__any_sync", line, function}, mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, SHIM_SITE) {
  return shim::vote({"__all_sync", line, function}, mask, predicate) == mask;
}

// Lanes are taken in groups of `width`, a power of two; a source outside the group is the lane itself.
template <typename Value>
static inline Value __shfl_sync(unsigned mask, Value value, int source, int width = 32, SHIM_SITE) {
  const int group = shim::own_lane() & -width;
  return shim::shuffle({"__shfl_sync", line, function}, mask, value,
                       group + (source & (width - 1)));
}
template <typename Value>
static inline Value __shfl_down_sync(unsigned mask, Value value, unsigned step, int width = 32,
                                     SHIM_SITE) {
  const int lane = shim::own_lane(), source = lane + (int)step;
  return shim::shuffle({"__shfl_down_sync", line, function}, mask, value,
                       (lane & -width) == (source & -width) ? source : lane);
}
template <typename Value>
static inline Value __shfl_up_sync(unsigned mask, Value value, unsigned step, int width = 32,
                                   SHIM_SITE) {
  const int lane = shim::own_lane(), source = lane - (int)step;
  return shim::shuffle({"__shfl_up_sync", line, function}, mask, value,
                       source >= (lane & -width) ? source : lane);
}
template <typename Value>
static inline Value __shfl_xor_sync(unsigned mask, Value value, int step, int width = 32,
                                    SHIM_SITE) {
  const int lane = shim::own_lane(), source = lane ^ step;
  return shim::shuffle({"__shfl_xor_sync", line, function}, mask, value,
                       (source & -width) <= (lane & -width) ? source : lane);
}

// ---- atomics: on integers alone, since a float sum by atomics depends on who comes first ----

#define SHIM_ATOMIC(name, type, expression)              \
  static inline type name(type *address, type value) {   \
    const type old = *(volatile type *)address;          \
    *(volatile type *)address = expression;              \
    return old;                                          \
  }
#define SHIM_ATOMICS(type)                                                      \
  SHIM_ATOMIC(atomicAdd, type, (type)(old + value))                             \
  SHIM_ATOMIC(atomicExch, type, value)                                          \
  SHIM_ATOMIC(atomicMax, type, old > value ? old : value)                       \
  SHIM_ATOMIC(atomicMin, type, old < value ? old : value)                       \
  SHIM_ATOMIC(atomicOr, type, (type)(old | value))                              \
  SHIM_ATOMIC(atomicAnd, type, (type)(old & value))                             \
  static inline type atomicCAS(type *address, type expected, type value) {      \
    const type old = *(volatile type *)address;                                 \
    if (old == expected) *(volatile type *)address = value;                     \
    return old;                                                                 \
  }
SHIM_ATOMICS(int)
SHIM_ATOMICS(unsigned)
SHIM_ATOMICS(unsigned long long)
#undef SHIM_ATOMICS
#undef SHIM_ATOMIC

// ---- numbers ----

static inline unsigned __float_as_uint(float value) { return shim::bits_as<unsigned>(value); }
static inline int __float_as_int(float value) { return shim::bits_as<int>(value); }
static inline float __uint_as_float(unsigned bits) { return shim::bits_as<float>(bits); }
static inline float __int_as_float(int bits) { return shim::bits_as<float>(bits); }
static inline long long __double_as_longlong(double value) {
  return shim::bits_as<long long>(value);
}
static inline double __longlong_as_double(long long bits) { return shim::bits_as<double>(bits); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)((unsigned long long)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
static inline int __clz(int bits) { return bits ? __builtin_clz((unsigned)bits) : 32; }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline float rsqrtf(float value) { return (float)(1 / sqrt((double)value)); }
static inline double rsqrt(double value) { return 1 / sqrt(value); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline float __fsqrt_rn(float value) { return sqrtf(value); }
static inline double __dsqrt_rn(double value) { return sqrt(value); }

#define SHIM_EXTREMES(type)                                              \
  static inline type min(type a, type b) { return b < a ? b : a; }       \
  static inline type max(type a, type b) { return a < b ? b : a; }
SHIM_EXTREMES(int)
SHIM_EXTREMES(unsigned)
SHIM_EXTREMES(long long)
SHIM_EXTREMES(unsigned long long)
#undef SHIM_EXTREMES

// ---- loads and stores with a hint ----

template <typename Value> static inline Value __ldg(const Value *address) { return *address; }
template <typename Value> static inline Value __ldcg(const Value *address) { return *address; }
template <typename Value> static inline Value __ldcs(const Value *address) { return *address; }
template <typename Value> static inline void __stcg(Value *address, Value value) {
  *address = value;
}
template <typename Value> static inline void __stcs(Value *address, Value value) {
  *address = value;
}

// ---- copies that go on by themselves ----

// `filled` bytes are copied, zeros follow. The copy happens at its wait and not a moment before;
// until then the shared memory holds NaN.
static inline void copy_async_16(void *shared, const void *global, int filled = 16) {
  shim::shim_copy(shared, global, 16, filled);
}
static inline void copy_async_8(void *shared, const void *global, int filled = 8) {
  shim::shim_copy(shared, global, 8, filled);
}
static inline void copy_async_4(void *shared, const void *global, int filled = 4) {
  shim::shim_copy(shared, global, 4, filled);
}
static inline void commit_copies() { shim::shim_commit_copies(); }
// Waits until at most the GROUPS youngest committed groups are under way.
template <int GROUPS> static inline void wait_copies() { shim::shim_wait_copies(GROUPS); }

// ---- tensor cores ----

// cvt.rna.tf32.f32: 10 bits of mantissa, ties away from zero.
static inline unsigned to_tf32(float value) {
  if (value != value) return 0x7fffe000u;
  return (__float_as_uint(value) + 0x1000u) & 0xffffe000u;
}

namespace shim {

static inline unsigned to_bf16(float value) {
  const unsigned bits = __float_as_uint(value);
  return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

struct Fragments {
  float *d;
  const unsigned *a, *b;
};

// The number that register `word` of an operand holds: its half `half` as bf16, or all as tf32.
static inline float operand(unsigned word, int half, bool bf16) {
  return __uint_as_float(bf16 ? (half ? word & 0xffff0000u : word << 16) : word & 0xffffe000u);
}

// Fragment layouts of the PTX ISA's mma.m16n8k8 (tf32) and mma.m16n8k16 (bf16): `group` is
// lane / 4 and `place` lane % 4. A register holds PACKED neighbours along the inner dimension.
//   a0 (row group, inner PACKED * place ..), a1 the same 8 rows below, a2 and a3 the same
//   4 * PACKED further in; b0 (inner PACKED * place .., column group), b1 4 * PACKED further in;
//   d0 and d1 (row group, columns 2 * place and 2 * place + 1), d2 and d3 8 rows below.
template <int PACKED> static inline void settle_mma(void **lanes, unsigned) {
  constexpr int INNER = 8 * PACKED;
  float a[16][INNER], b[INNER][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments &own = *(Fragments *)lanes[lane];
    const int group = lane / 4, place = lane % 4;
    for (int word = 0; word < 4; ++word)
      for (int half = 0; half < PACKED; ++half)
        a[group + 8 * (word % 2)][PACKED * (place + 4 * (word / 2)) + half] =
            operand(own.a[word], half, PACKED == 2);
    for (int word = 0; word < 2; ++word)
      for (int half = 0; half < PACKED; ++half)
        b[PACKED * (place + 4 * word) + half][group] = operand(own.b[word], half, PACKED == 2);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Fragments &own = *(Fragments *)lanes[lane];
    for (int word = 0; word < 4; ++word) {
      const int row = lane / 4 + 8 * (word / 2), column = 2 * (lane % 4) + word % 2;
      double sum = own.d[word];
      for (int inner = 0; inner < INNER; ++inner)
        sum += (double)a[row][inner] * (double)b[inner][column];
      own.d[word] = (float)sum;
    }
  }
}

}  // namespace shim

// `low` is the neighbour with the lower index; round to nearest even.
static inline unsigned pack_bf16(float low, float high) {
  return shim::to_bf16(low) | shim::to_bf16(high) << 16;
}

// d += a b, a of 16 rows, b of 8 columns, by the 32 lanes of a warp together.
static inline void mma_m16n8k8_tf32(float d[4], const unsigned a[4], const unsigned b[2],
                                    SHIM_SITE) {
  shim::Fragments own = {d, a, b};
  shim::shim_meet_warp({"mma_m16n8k8_tf32", line, function}, 0xffffffffu, &own,
                       shim::settle_mma<1>);
}
static inline void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2],
                                     SHIM_SITE) {
  shim::Fragments own = {d, a, b};
  shim::shim_meet_warp({"mma_m16n8k16_bf16", line, function}, 0xffffffffu, &own,
                       shim::settle_mma<2>);
}

// ---- the types of parameters, for who launches ----

namespace shim {

template <typename> struct Code {
  static constexpr const char *text = "?";
};
#define SHIM_CODE(type, name)                        \
  template <> struct Code<type> {                    \
    static constexpr const char *text = name;        \
  };                                                 \
  template <> struct Code<type *> {                  \
    static constexpr const char *text = "*" name;    \
  };                                                 \
  template <> struct Code<const type *> {            \
    static constexpr const char *text = "*" name;    \
  };
SHIM_CODE(bool, "bool")
SHIM_CODE(signed char, "int8")
SHIM_CODE(short, "int16")
SHIM_CODE(int, "int32")
SHIM_CODE(long, "int64")
SHIM_CODE(long long, "int64")
SHIM_CODE(unsigned char, "uint8")
SHIM_CODE(unsigned short, "uint16")
SHIM_CODE(unsigned, "uint32")
SHIM_CODE(unsigned long, "uint64")
SHIM_CODE(unsigned long long, "uint64")
SHIM_CODE(float, "float32")
SHIM_CODE(double, "float64")
#undef SHIM_CODE
template <> struct Code<void *> {
  static constexpr const char *text = "*";
};
template <> struct Code<const void *> {
  static constexpr const char *text = "*";
};

// A kernel as it is found in a library.
struct Entry {
  const char *name;
  void (*call)(void **arguments);
  int most_threads, parameters;
  const char *const *types;
};

template <int... PLACES> struct Places {};

template <typename> struct Signature;
template <typename... Parameters> struct Signature<void(Parameters...)> {
  static constexpr int count = sizeof...(Parameters);
  static constexpr const char *types[] = {Code<Parameters>::text..., nullptr};
  template <void (*kernel)(Parameters...)> static void call(void **arguments) {
    pass<kernel>(arguments, Places<__integer_pack(count)...>{});
  }
  template <void (*kernel)(Parameters...), int... PLACES>
  static void pass(void **arguments, Places<PLACES...>) {
    kernel(*(Parameters *)arguments[PLACES]...);
  }
};

}  // namespace shim

#define SHIM_ENTRY(kernel, most_threads)                                              \
  {#kernel, shim::Signature<decltype(kernel)>::call<kernel>, most_threads,            \
   shim::Signature<decltype(kernel)>::count, shim::Signature<decltype(kernel)>::types}
#define SHIM_SHOWN extern "C" __attribute__((visibility("default")))
