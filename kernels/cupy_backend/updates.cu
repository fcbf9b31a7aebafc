// Operations on all parameters: optimizer steps, and the norm of the gradients.

// So many numbers side by side that are read at once.
template <int WIDTH> struct alignas(WIDTH * sizeof(real)) Pack {
  real of[WIDTH];
};

// The arrays of an optimizer's slots.
template <int COUNT> struct Slots {
  real *of[COUNT > 0 ? COUNT : 1];
};

// One optimizer step of the WIDTH weights from `place` on.
template <class Update, int WIDTH>
__device__ __forceinline__ void update_at(long long place, real *weight, const real *grad,
                                          const Slots<Update::SLOTS> &slots, const real *scalars,
                                          real clip, real scale) {
  typedef Pack<WIDTH> Numbers;
  Numbers weights = *(const Numbers *)(weight + place), state[Update::SLOTS + 1];
  const Numbers grads = *(const Numbers *)(grad + place);
  for (int n = 0; n < Update::SLOTS; ++n) state[n] = *(const Numbers *)(slots.of[n] + place);
#pragma unroll
  for (int k = 0; k < WIDTH; ++k) {
    real own[Update::SLOTS + 1];
    for (int n = 0; n < Update::SLOTS; ++n) own[n] = state[n].of[k];
    Update::apply(weights.of[k], grads.of[k] * scale, own, scalars, clip);
    for (int n = 0; n < Update::SLOTS; ++n) state[n].of[k] = own[n];
  }
  *(Numbers *)(weight + place) = weights;
  for (int n = 0; n < Update::SLOTS; ++n) *(Numbers *)(slots.of[n] + place) = state[n];
}

// One optimizer step of all weights; none where training has diverged (progress may be nullptr).
// 16 bytes of each array at once where all begin equally far from a 16-byte boundary, and single
// numbers before, after, and elsewhere. Bytes: the gradient once, all else twice.
template <class Update>
__device__ void update(Team team, long long size, real *weight, const real *grad,
                       Slots<Update::SLOTS> slots, const real *scalars, real clip, real scale,
                       const long long *progress) {
  if (has_diverged(progress)) return;
  constexpr int WIDTH = 16 / sizeof(real);
  const auto misplaced = [](const real *array) { return (int)((unsigned long long)array % 16); };
  bool packed = misplaced(weight) == misplaced(grad);
  for (int n = 0; n < Update::SLOTS; ++n)
    packed = packed && misplaced(weight) == misplaced(slots.of[n]);
  long long head = (16 - misplaced(weight)) % 16 / (int)sizeof(real);
  if (head > size) head = size;
  const long long packs = packed ? (size - head) / WIDTH : 0, rest = size - packs * WIDTH;

  real numbers[Update::SCALARS + 1];
  for (int n = 0; n < Update::SCALARS; ++n) numbers[n] = scalars[n];
  const long long thread = (long long)team.block * THREADS + threadIdx.x;
  const long long threads = (long long)team.blocks * THREADS;
  for (long long pack = thread; pack < packs; pack += threads)
    update_at<Update, WIDTH>(head + pack * WIDTH, weight, grad, slots, numbers, clip, scale);
  for (long long single = thread; single < rest; single += threads)
    update_at<Update, 1>(single < head ? single : single + packs * WIDTH, weight, grad, slots,
                         numbers, clip, scale);
}

// For each chunk of THREADS * A_THREAD numbers of an array: the largest size, and the sum of
// squares of the numbers divided by it, at partials[2 (first_chunk + chunk)]. So no square
// overflows or falls to zero; NaN and infinity show in the largest. A chunk stays in registers.
// Takes THREADS / 32 numbers of block memory. Bytes: each number once.
template <int A_THREAD>
__device__ void squares(Team team, long long size, const real *values, real *partials,
                        long long first_chunk) {
  constexpr int CHUNK = A_THREAD * THREADS;
  for (long long first = (long long)team.block * CHUNK; first < size;
       first += (long long)team.blocks * CHUNK) {
    real kept[A_THREAD], largest = real(0), sum = real(0);
#pragma unroll
    for (int k = 0; k < A_THREAD; ++k) {
      const long long place = first + k * THREADS + threadIdx.x;
      kept[k] = place < size ? values[place] : real(0);
    }
#pragma unroll
    for (int k = 0; k < A_THREAD; ++k) largest = Largest()(largest, size_of(kept[k]));
    largest = over_lanes<THREADS>(largest, Largest());
#pragma unroll
    for (int k = 0; k < A_THREAD; ++k) {
      const real ratio = kept[k] / largest;
      sum = multiply_add(ratio, ratio, sum);
    }
    sum = over_lanes<THREADS>(sum, Sum());
    if (threadIdx.x == 0) {
      const long long chunk = first_chunk + first / CHUNK;
      partials[2 * chunk] = largest;
      partials[2 * chunk + 1] = sum;
    }
  }
}

// norm[0] = the root of all chunks' squares, made by one block. Takes THREADS / 32 numbers of
// block memory.
__device__ void norm_of(Team team, int chunks, const real *partials, real *norm) {
  if (team.block != 0) return;
  real largest = real(0);
  for (int chunk = threadIdx.x; chunk < chunks; chunk += THREADS)
    largest = Largest()(largest, partials[2LL * chunk]);
  largest = over_lanes<THREADS>(largest, Largest());
  const real sum = block_total(chunks, [=](int chunk) {
    const real ratio = partials[2LL * chunk] / largest;
    return ratio > real(0) ? partials[2LL * chunk + 1] * ratio * ratio : real(0);
  });
  // zero, infinity and NaN are the norm themselves
  const bool divides = is_finite(largest) && largest > real(0);
  if (threadIdx.x == 0) norm[0] = divides ? largest * square_root(sum) : largest;
}

// scale[0] = what makes a gradient of this norm one of the limit at most.
__device__ void norm_scale(Team team, const real *norm, real limit, real *scale) {
  if (team.block == 0 && threadIdx.x == 0) scale[0] = Formula::norm_clip(norm[0], limit);
}
