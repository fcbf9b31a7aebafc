// What frames a step of training: the weight of its batch, the check of its loss, and the way on.

// scale[0] = one over the weight of a batch: of its rows' weights, or, without any (nullptr), of
// its number of rows. Made by one block; takes THREADS / 32 numbers of block memory.
__device__ void weigh(Team team, int rows, const real *weights, Order order, real *scale) {
  if (team.block != 0) return;
  real weight = real(rows);
  if (weights) weight = block_total(rows, [=](int row) { return weights[order(row)]; });
  if (threadIdx.x == 0) scale[0] = Formula::batch_scale(weight);
}

// The loss and the hits of a batch's rows, at `place` of the record of steps (ADDS: added to what
// stands there); where STOPS and the loss is not finite, training has diverged. Made by one block,
// unless training had diverged before; takes THREADS / 32 numbers of block memory.
template <bool ADDS, bool STOPS>
__device__ void check(Team team, int rows, const real *row_losses, const real *row_hits,
                      real scale, long long *progress, long long place, real *losses,
                      real *hits) {
  if (team.block != 0 || progress[DIVERGED]) return;
  const real loss = block_total(rows, [=](int row) { return row_losses[row]; }) * scale;
  const real right = block_total(rows, [=](int row) { return row_hits[row]; });
  if (threadIdx.x == 0) {
    losses[place] = ADDS ? losses[place] + loss : loss;
    hits[place] = ADDS ? hits[place] + right : right;
    if (STOPS && !is_finite(losses[place])) progress[DIVERGED] = 1;
  }
}

// The square of a norm, at `place` of the record of steps. Made by one block, unless training has
// diverged.
__device__ void record_square(Team team, const real *norm, const long long *progress,
                              long long place, real *squares) {
  if (team.block != 0 || threadIdx.x != 0 || progress[DIVERGED]) return;
  squares[place] = norm[0] * norm[0];
}

// The step is done: on to the next one's rows, unless training has diverged.
__device__ void advance(Team team, int rows, long long *progress) {
  if (team.block != 0 || threadIdx.x != 0 || progress[DIVERGED]) return;
  progress[FIRST] += rows;
  progress[STEP] += 1;
}
