// What a kernel needs that stays on the device for many steps.

#ifdef __CUDACC__
// Let others go on while a thread waits for them.
__device__ __forceinline__ void pause_thread() {}
#endif

// Wait until every block of the grid has come here; what they wrote before is then seen by all.
// Together the blocks add the highest bit to `arrivals`, so that it turns over as the last of them
// comes and the other bits are as before: 0, however often the blocks of however many launches
// meet. Bytes: one atomic addition a block, then reads of one word by one thread a block.
__device__ __forceinline__ void grid_barrier(unsigned *arrivals) {
  constexpr unsigned HIGHEST = 0x80000000u;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const unsigned before = atomicAdd(arrivals, blockIdx.x == 0 ? HIGHEST - (gridDim.x - 1) : 1u);
    while (((*(volatile unsigned *)arrivals ^ before) & HIGHEST) == 0) pause_thread();
    __threadfence();
  }
  __syncthreads();
}

// Copy words from one place to another, all threads of the block together.
template <typename Word>
__device__ __forceinline__ void copy_words(Word *to, const Word *from, int count) {
  for (int place = threadIdx.x; place < count; place += THREADS) to[place] = from[place];
}
