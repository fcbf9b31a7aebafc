"""The layout of a compiled program: one flat table of 64-bit integers that the engine walks.

A header, then a row of WIDTH words for each operation. Everything is an integer: sizes, addresses
of buffers, addresses of compiled kernels. The engine therefore holds no formula, no dtype and no
shape, and is compiled once a machine.
"""

from __future__ import annotations

# ---- header ----
(
    ITEMSIZE,  # bytes an element
    LANES,  # elements a vector, and the shift that stands for them
    LANES_SHIFT,
    PANEL,  # columns of a whole weight panel, and their shift
    PANEL_SHIFT,
    ROW_STEP,  # threads share out rows in multiples of this
    BATCH,  # rows a step
    SAMPLES,  # rows an epoch
    CHUNK_ROWS,  # rows a pass through the chunk section
    CHUNK_BEGIN,  # first word of the operations done for each chunk
    CHUNK_END,
    STEP_END,  # operations from CHUNK_END to here are done once a step
    CHECK_EVERY,  # chunks between two looks at the clock
    SCALARS,  # optimizer scalars: address, bytes a step, bytes of one of its two halves
    SCALARS_STEP,
    SCALARS_HALF,
    CLIP_SCALE,  # address of the factor of norm clipping
    BATCH_SCALE,  # address of 1 / batch weight
    ONES,  # address of 1.0
    SCRATCH,  # address of a unit of gradients; where threads share a table, the first thread's,
    SCRATCH_BYTES,  # and bytes a thread
    LOSSES,  # addresses of the loss, the hits and the sum of squares of each step, and bytes a
    HITS,  # step: 0 where it is not this thread that keeps the record
    SQUARE_SUMS,
    RECORD_STEP,
    CLOCK,  # addresses of kernels
    BARRIER_KERNEL,
    FLUSH_KERNEL,
    RESTORE_KERNEL,
    TOTAL_KERNEL,
    ROW_TILES,  # first word of the two tables of product tiles
    COLUMN_TILES,
    EDGE_TILES,
    WIDEST,  # vectors across a whole panel
    DESCRIBE,
    TAKE,
    WATCH,
    LOOKS,  # of a helper thread for the next run, before it sleeps
    SHARES_AS_IT_GOES,  # 1: threads take blocks of rows, and units of weights, as they get ready
    BLOCKS,  # first word of the first rows of those blocks, and how many there are
    BLOCK_COUNT,
    COUNTERS,  # how many operations count what is taken of them
    PATIENCE,  # looks at a barrier before this thread sleeps; the barrier's own to change
    LOOKS_AHEAD,  # 1: a step makes something ready for the next: rows, or even the first product
    TAKES_LONG,  # 1: a run may stop between the operations of a chunk
    MOVES,  # address and number of the words that differ from epoch to epoch: for each the
    MOVE_COUNT,  # address, and what is added to it
) = range(47)
HEADER = 48

# ---- tables of tiles: for each width in vectors, for each count of rows that are left, ----
# ---- the height of the tile to use and the address of its kernel ----
TALLEST = 12
TILE_WORDS = 2 * (TALLEST + 1)
NARROW = 2  # vectors across a tile of the transposed product
EDGE_VECTORS = 8  # vectors across a tile of one row over weights as their owner keeps them

# ---- fields of an operation ----
(
    OPERATION,
    KERNEL,  # the kernel of the operation, or the tail of a product
    BY_COLUMNS,  # 1: threads share out columns, in panels
    BY_EVERYONE,  # 1: every thread does all of it, for itself
    BARRIER,  # 1: all threads meet behind this operation
    COLUMNS,
    INNER,  # the dimension that a product sums over; of a weight gradient, the weight's rows
    A,  # addresses of operands, each with its leading dimension: what is read, what more is read
    LDA,
    B,
    LDB,
    C,  # what is written
    LDC,
    SLOPE,  # the slope, written by a map, read by a multiplication
    LD_SLOPE,
    EXTRA,  # the words of ``extra``
    WEIGHT,  # addresses of a parameter, of its stored gradient, and of partial sums of squares
    GRAD,
    PARTIALS,
    HAS_BIAS,  # 1: the bias stands behind the rows of each panel of weights
    SLOT_0,  # the optimizer's slots, as many as its formula has
    SLOT_1,
    SLOT_2,
    UPDATES,  # 1: the weight gradient is consumed at once by the update kernel
    DECAYED,  # 1: weight decay applies to the weights
    BIAS_DECAYED,
    STRICT,  # 1: a loss, or data, that is not finite ends the run
    TAIL,  # the kernel of an operation's last part, where KERNEL is that of its first
    OUTER,  # the kernel that updates by the gradient of OUTER_ROWS rows
    OUTER_ROWS,
    BIAS,  # the bias, where it does not stand behind the weights
    GROUP_END,  # the word behind a group of operations that are done block of rows by block
    COUNTER,  # the number of the counter of what is taken
    SWEEP,  # the kernel in which a row's update and the next row's product share a pass
    PLACES,  # the places that the first operand (of a gather: the rows) has in turn, step by step
    PLACE_BYTES,  # from one to the next
    SUMS,  # the first of two places for what the next row's product comes to, used in turn
    SUMS_BYTES,
    SOURCE_BYTES,  # of an element of the data
) = range(39)
MOST_SLOTS = 3
ARGUMENTS = WEIGHT  # an operation without weights keeps addresses that its kernel wants from here
WIDTH = 40

# ---- operations ----
(
    GATHER,
    LINEAR,
    GRAD_INPUT,
    GRAD_WEIGHT,
    TRANSPOSE,
    MAP,
    MULTIPLY,
    LOSS,
    SOFTMAX,
    FLAT_UPDATE,
    BATCH_NORM,
    BATCH_NORM_GRAD,
    RUNNING,
    CHECK,
    SQUARES,
    CLIP,
    UPDATE,
    WEIGH,
    COPY_OUT,
    MOMENTS,
    COLUMN_TOTAL,
    SUM,
    DOTS,
    LINEAR_IN_PLACE,
    WEIGHT_SQUARES,
    SQUARE_SUM,
) = range(26)

# ---- control words, shared by the threads of a run ----
(
    STEP,  # where a run begins, and where it stopped
    CHUNK,
    LAST_STEP,
    DEADLINE,  # nanoseconds of the monotonic clock
    STATUS,
    STOP,  # two flags, used in turn
    STOP_ODD,
    TIME,  # two words for the clock to write
    TIME_NANO,
    FIRST_STEP,  # the step whose scalars and record come first
    PRIMED,  # 1: what the step before makes ready is there
    NEXT_OPERATION,  # the word of the table to go on at
    PAUSE,  # two flags like STOP, for the meetings within a chunk
    PAUSE_ODD,
    BELL,  # the address of the word that tells waiting threads that a run begins
    RUNG,  # what it then stood at
    EPOCHS,  # that follow this one
) = range(17)
ARRIVED, GENERATION = 24, 32  # each on a cache line of its own
SLEEPERS = ARRIVED + 1  # threads that wait asleep
LAST_CORE = GENERATION + 1  # where the last to arrive ran, if it saw sleepers
CONTROL = 40  # behind these stand two sets of counters, used in turn

# ---- what is read of a caller's array: its address, number of axes, lengths, strides, dtype ----
(
    ARRAY_DATA,
    ARRAY_AXES,
    ARRAY_ROWS,
    ARRAY_COLUMNS,
    ARRAY_ROW_BYTES,
    ARRAY_STEP,
    ARRAY_TYPE,
) = range(7)
ARRAY_WORDS = 7

RUNNING_ON, DIVERGED, STOPPED = range(3)
DIVERGED_HERE = -1

UNIT_ROWS = 48
"""Weight rows whose gradient is made, and used, before the next: a unit of work of a thread."""
INNER_BLOCK = 1024
"""Rows of a weight panel that are walked before the next block: 256 KiB of a nearest big cache."""
BATCH_BLOCK = 128
"""Batch rows walked for a weight gradient at once: 48 KiB of activations and gradients."""
SQUARES_BLOCK = 4096
"""Gradient elements whose squares are added up before the sums are added; of weights, a unit's."""
