// What a kernel needs that stays on the device for many steps.

#ifdef __CUDACC__
// Let others go on while a thread waits for them.
__device__ __forceinline__ void pause_thread() {}
#endif

// Wait until every block of the grid has come here; what they wrote before is then seen by all.
// `arrivals` counts on from launch to launch. Bytes: one atomic addition a block, then reads of one
// word by one thread a block.
__device__ __forceinline__ void grid_barrier(unsigned *arrivals) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const unsigned before = atomicAdd(arrivals, 1u);
    const unsigned complete = before - before % gridDim.x + gridDim.x;
    // the difference is right beyond the largest unsigned too
    while ((int)(*(volatile unsigned *)arrivals - complete) < 0) pause_thread();
    __threadfence();
  }
  __syncthreads();
}

// Copy words from one place to another, all threads of the block together.
template <typename Word>
__device__ __forceinline__ void copy_words(Word *to, const Word *from, int count) {
  for (int place = threadIdx.x; place < count; place += THREADS) to[place] = from[place];
}
