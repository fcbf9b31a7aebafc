// Operations on whole rows: softmax, and losses with their gradients.
//
// LANES threads side by side share a row: as few of a warp as its columns fill, a warp, or a block
// for long rows. The row stays in KEPT registers a thread, or, where KEPT is 0, is read again from
// the nearest cache. Sums run over a thread's columns, then over the lanes: an order that the
// number of columns decides.

// work(row, its columns) for every row, by all threads of a block together. Lanes that have no row
// get the last one, without columns.
template <int LANES, class Work>
__device__ __forceinline__ void each_row(Team team, int rows, int columns, Work work) {
  constexpr int AT_ONCE = THREADS / LANES;
  for (long long first = (long long)team.block * AT_ONCE; first < rows;
       first += (long long)team.blocks * AT_ONCE) {
    const long long row = first + threadIdx.x / LANES;
    if (row < rows)
      work((int)row, columns);
    else
      work(rows - 1, 0);
  }
}

// work(column, turn) for a thread's columns.
template <int LANES, int KEPT, class Work>
__device__ __forceinline__ void each_column(int columns, Work work) {
  const int lane = threadIdx.x % LANES;
  if constexpr (KEPT > 0) {
#pragma unroll
    for (int turn = 0; turn < KEPT; ++turn) {
      const int column = lane + turn * LANES;
      if (column < columns) work(column, turn);
    }
  } else {
    for (int column = lane, turn = 0; column < columns; column += LANES, ++turn)
      work(column, turn);
  }
}

// A thread's elements of a row.
template <int LANES, int KEPT> struct Elements {
  const real *row;
  real kept[KEPT > 0 ? KEPT : 1];

  __device__ __forceinline__ Elements(const Matrix<real> &matrix, int number, int columns)
      : row(matrix.data + number * matrix.stride) {
    if constexpr (KEPT > 0)
      each_column<LANES, KEPT>(columns, [&](int column, int turn) { kept[turn] = row[column]; });
  }
  __device__ __forceinline__ real operator()(int column, int turn) const {
    return KEPT > 0 ? kept[KEPT > 0 ? turn : 0] : row[column];
  }
};

// A row's largest element; NaN where one is NaN.
template <int LANES, int KEPT, class Of>
__device__ __forceinline__ real largest_of(int columns, Of elements) {
  real largest = minus_infinity();
  each_column<LANES, KEPT>(columns, [&](int column, int turn) {
    largest = Largest()(largest, elements(column, turn));
  });
  return over_lanes<LANES>(largest, Largest());
}

// The first place of a row's largest element; -1 where there is none (NaN, or all -inf).
template <int LANES, int KEPT, class Of>
__device__ __forceinline__ int best_of(int columns, Of elements, real largest) {
  constexpr int NOWHERE = 0x7fffffff;
  int place = NOWHERE;
  each_column<LANES, KEPT>(columns, [&](int column, int turn) {
    if (place == NOWHERE && elements(column, turn) == largest) place = column;
  });
  place = over_lanes<LANES>(place, Least());
  return largest > minus_infinity() ? place : -1;
}

// y = softmax of each row of x, which y may be. Flops: two exps and four more an element. Bytes:
// a read and a write an element.
template <int LANES, int KEPT>
__device__ void softmax(Team team, int rows, int columns, Matrix<real> x, Matrix<real> y) {
  each_row<LANES>(team, rows, columns, [=](int row, int columns) {
    const Elements<LANES, KEPT> logits(x, row, columns);
    const real row_max = largest_of<LANES, KEPT>(columns, logits);
    real total = real(0);
    each_column<LANES, KEPT>(columns, [&](int column, int turn) {
      total += Formula::softmax_numerator(logits(column, turn), row_max);
    });
    total = over_lanes<LANES>(total, Sum());
    each_column<LANES, KEPT>(columns, [&](int column, int turn) {
      y(row, column) = Formula::softmax_numerator(logits(column, turn), row_max) / total;
    });
  });
}

// grad = y (grad - sum(y grad)) in place. Flops: five an element. Bytes: two reads and a write.
template <int LANES, int KEPT>
__device__ void softmax_grad(Team team, int rows, int columns, Matrix<real> y, Matrix<real> grad) {
  each_row<LANES>(team, rows, columns, [=](int row, int columns) {
    const Elements<LANES, KEPT> outputs(y, row, columns), grads(grad, row, columns);
    real dot = real(0);
    each_column<LANES, KEPT>(columns, [&](int column, int turn) {
      dot = multiply_add(outputs(column, turn), grads(column, turn), dot);
    });
    dot = over_lanes<LANES>(dot, Sum());
    each_column<LANES, KEPT>(columns, [&](int column, int turn) {
      grad(row, column) = Formula::softmax_grad(outputs(column, turn), grads(column, turn), dot);
    });
  });
}

// What is recorded of a loss, of a row or an element: all of it, or what lies within limits.
struct Unlimited {
  __device__ __forceinline__ real operator()(real loss) const { return loss; }
};
struct Limited {
  real low, high;
  __device__ __forceinline__ real operator()(real loss) const {
    return Formula::between(loss, low, high);
  }
};

// What a loss leaves of each row: its weighted loss, and 1 where the prediction is right. The
// gradient is multiplied by the row's weight and `scale`.
struct Record {
  const real *weights;  // of the data set's rows; nullptr where all weigh 1
  Order order;
  real scale;
  real *row_losses, *row_hits;

  __device__ __forceinline__ real weight(int row) const {
    return weights ? weights[order(row)] : real(1);
  }
  template <int LANES>
  __device__ __forceinline__ void put(int row, int columns, real loss, bool hit) const {
    if (threadIdx.x % LANES == 0 && columns > 0) {
      row_losses[row] = loss * weight(row);
      row_hits[row] = hit ? real(1) : real(0);
    }
  }
};

// Targets that are class numbers.
struct Labels {
  const long long *labels;  // of the data set's rows

  template <int LANES, int KEPT> struct Row {
    long long label;
    __device__ __forceinline__ Row(const Labels &targets, long long place, int)
        : label(targets.labels[place]) {}
    __device__ __forceinline__ real operator()(int column, int) const {
      return column == label ? real(1) : real(0);
    }
    __device__ __forceinline__ long long best() const { return label; }
  };
};

// Targets that are rows of probabilities.
struct Probabilities {
  Matrix<real> rows;  // of the data set

  template <int LANES, int KEPT> struct Row {
    const real *values;
    int columns;
    __device__ __forceinline__ Row(const Probabilities &targets, long long place, int columns)
        : values(targets.rows.data + place * targets.rows.stride), columns(columns) {}
    __device__ __forceinline__ real operator()(int column, int) const { return values[column]; }
    __device__ __forceinline__ long long best() const {
      return best_of<LANES, KEPT>(columns, *this, largest_of<LANES, KEPT>(columns, *this));
    }
  };
};

// Softmax cross-entropy of each row with smoothed targets, and its gradient by the logits, which
// may take their place. A hit is a row whose largest logit stands where its target says. Flops:
// two exps and some ten more an element. Bytes: a read and, with the gradient, a write an element.
template <int LANES, int KEPT, class Targets, class Limits>
__device__ void cross_entropy(Team team, int rows, int columns, Matrix<real> outputs,
                              Targets targets, real smoothing, Matrix<real> grad, Record record,
                              Limits recorded) {
  const real classes = real(columns);
  each_row<LANES>(team, rows, columns, [=](int row, int columns) {
    const Elements<LANES, KEPT> logits(outputs, row, columns);
    const typename Targets::template Row<LANES, KEPT> goals(targets, record.order(row), columns);
    const auto smoothed = [&](int column, int turn) {
      return Formula::smooth_target(goals(column, turn), smoothing, classes);
    };
    const real row_max = largest_of<LANES, KEPT>(columns, logits);
    const bool hit = best_of<LANES, KEPT>(columns, logits, row_max) == goals.best();
    real total = real(0), target_sum = real(0), target_dot = real(0);
    each_column<LANES, KEPT>(columns, [&](int column, int turn) {
      const real logit = logits(column, turn), target = smoothed(column, turn);
      total += Formula::softmax_numerator(logit, row_max);
      target_sum += target;
      target_dot += Formula::cross_entropy_term(target, logit, row_max);
    });
    total = over_lanes<LANES>(total, Sum());
    target_sum = over_lanes<LANES>(target_sum, Sum());
    target_dot = over_lanes<LANES>(target_dot, Sum());
    const real loss = Formula::cross_entropy_row(target_sum, logarithm(total), target_dot);
    record.put<LANES>(row, columns, recorded(loss), hit);
    if (grad.data) {
      const real ratio = target_sum / total, factor = record.weight(row) * record.scale;
      each_column<LANES, KEPT>(columns, [&](int column, int turn) {
        const real numerator = Formula::softmax_numerator(logits(column, turn), row_max);
        const real target = smoothed(column, turn);
        grad(row, column) = Formula::cross_entropy_grad(numerator, target, ratio) * factor;
      });
    }
  });
}

// The sum of an elementwise loss over each row times each output's share, and its gradient by the
// outputs, which may take their place. A hit is a row whose every output lies on its target's side
// (0 for the output, 1/2 for the target). Flops: the formula's. Bytes: two reads and, with the
// gradient, a write.
template <class Loss, int LANES, class Limits>
__device__ void elementwise_loss(Team team, int rows, int columns, Matrix<real> outputs,
                                 Matrix<real> targets, real share, Matrix<real> grad,
                                 Record record, Limits recorded) {
  each_row<LANES>(team, rows, columns, [=](int row, int columns) {
    const long long place = record.order(row);
    const real factor = record.weight(row) * record.scale;
    real total = real(0);
    int hit = 1;
    each_column<LANES, 0>(columns, [&](int column, int) {
      const real output = outputs(row, column), target = targets(place, column);
      real results[2];
      if (grad.data) {
        Loss::apply(output, target, results);
        grad(row, column) = results[1] * share * factor;
      } else {
        results[0] = Loss::value(output, target);
      }
      total += recorded(results[0]);
      const bool same_side = (output > real(0)) == (target > real(0.5));
      hit = same_side && output == output && target == target ? hit : 0;
    });
    total = over_lanes<LANES>(total, Sum());
    hit = over_lanes<LANES>(hit, Least());
    record.put<LANES>(row, columns, total * share, hit == 1);
  });
}
