"""A device that does nothing before it must: memory, streams, events, captures and graphs.

Work that is put on a stream waits there, in order, until somebody waits for it: a read that should
have waited for a stream, or for an event of another one, finds what was there before. One device
serves the process, as a real one does.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from .compile import KernelError
from .memory import Guarded

_QUARANTINE_BYTES = 1 << 26
"""Freed memory that is kept as NaN, so that who still reads it sees NaN."""


class StatusError(RuntimeError):
    """An error that a CUDA library would return; ``status`` is its name."""

    def __init__(self, status: str, message: str = ""):
        super().__init__(f"{status}: {message}" if message else status)
        self.status = status


class CUDARuntimeError(StatusError):
    """CuPy's, of the runtime."""


class Allocation:
    """Device memory; it returns to its stream's order when nobody holds it any more.

    Parameters
    ----------
    size, itemsize : int
        Bytes, of all and of one of its numbers.
    queue : Queue
        The stream that was current when it was taken.
    """

    def __init__(self, size: int, itemsize: int, queue: Queue):
        self.size = size
        self.buffer = Guarded(size, itemsize)
        self.ptr = self.buffer.address
        weakref.finalize(self, queue.device.freed, self.buffer, queue).atexit = False

    def holds(self, address: int, size: int) -> bool:
        """Whether these bytes lie in it."""
        return self.ptr <= address and address + size <= self.ptr + self.size


@dataclass(frozen=True)
class Work:
    """Something that a stream does.

    Parameters
    ----------
    what : str
        For messages.
    run : callable
        Does it. It must hold the memory that it needs, not the allocation.
    uses : tuple of weak references to Allocation
        What it reads or writes, as far as its arguments tell.
    """

    what: str
    run: Callable[[], None]
    uses: tuple[weakref.ref[Allocation], ...] = ()
    buffers: tuple[Guarded, ...] = ()

    def check_alive(self) -> None:
        """Raise where memory that a graph was captured with has been freed."""
        for place, reference in enumerate(self.uses):
            if reference() is None:
                raise KernelError(
                    f"graph: {self.what} was captured with an array, number {place} "
                    "of those it uses, that has been freed"
                )


def work_on(what: str, run: Callable[[], None], allocations: Iterable[Allocation | None]) -> Work:
    """Work that uses these allocations (None for arrays of no bytes)."""
    used = [allocation for allocation in allocations if allocation is not None]
    return Work(what, run, tuple(map(weakref.ref, used)), tuple(a.buffer for a in used))


@dataclass(eq=False)
class Queue:
    """What a stream has still to do."""

    device: SimulatedDevice
    ptr: int
    blocking: bool
    pending: deque[Work] = field(default_factory=deque)
    given: int = 0
    done: int = 0
    capture: list[Work] | None = None

    def put(self, work: Work) -> None:
        """Take work; while capturing, keep it for the graph instead."""
        if self.capture is not None:
            self.capture.append(work)
            return
        self.device.order_frees()
        for other in self.device.queues_before(self):
            self.append(Work("a wait", other.finisher()))
        self.append(work)

    def finisher(self) -> Callable[[], None]:
        """What finishes all that this queue has been given until now."""
        ticket = self.given
        return lambda: self.finish(ticket)

    def finish(self, ticket: int | None = None) -> None:
        """Do the work up to a count of all that was given; all of it by default."""
        with self.device.lock:
            self.device.order_frees()
            ticket = self.given if ticket is None else ticket
            while self.done < ticket and self.pending:
                work = self.pending.popleft()
                self.done += 1
                try:
                    work.run()
                    for buffer in work.buffers:
                        if buffer.damaged():
                            raise KernelError(f"{work.what} wrote beside an array")
                except BaseException:
                    self.device.forget_work()
                    raise

    def append(self, work: Work) -> None:
        """Take work as it is."""
        with self.device.lock:
            self.pending.append(work)
            self.given += 1


class Event:
    """CuPy's Event: a place in a stream's work."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ):
        self._queue: Queue | None = None
        self._ticket = 0
        self._timed = not disable_timing
        self.time = float("nan")

    def record(self, stream: Stream | None = None) -> None:
        queue = (stream or DEVICE.current()).queue
        if queue.capture is not None:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported", "the stand-in knows no events in a capture"
            )
        queue.put(Work("an event", self._stamp))
        self._queue, self._ticket = queue, queue.given

    def synchronize(self) -> None:
        DEVICE.refuse_in_capture("Event.synchronize")
        if self._queue is not None:
            self._queue.finish(self._ticket)

    @property
    def done(self) -> bool:
        """Whether the work before it is done; asking lets the device go on a little."""
        if self._queue is None:
            return True
        self._queue.finish(min(self._ticket, self._queue.done + 1))
        return self._queue.done >= self._ticket

    def wait_in(self, queue: Queue) -> None:
        if self._queue is not None:
            recorded, ticket = self._queue, self._ticket
            queue.put(Work("a wait", lambda: recorded.finish(ticket)))

    def milliseconds_until(self, end: Event) -> float:
        for event in (self, end):
            if not event._timed or not event.done:
                raise CUDARuntimeError("cudaErrorInvalidResourceHandle", "event without a time")
        return 1e3 * (end.time - self.time)

    def _stamp(self) -> None:
        self.time = time.perf_counter()


class Graph:
    """CuPy's Graph: captured work."""

    def __init__(self, works: list[Work]):
        self._works = works

    def launch(self, stream: Stream | None = None) -> None:
        queue = (stream or DEVICE.current()).queue
        if queue.capture is not None:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported", "the stand-in knows no graphs in graphs"
            )
        for work in self._works:
            work.check_alive()
        for work in self._works:
            queue.put(work)

    def upload(self, stream: Stream | None = None) -> None:
        for work in self._works:
            work.check_alive()


class Stream:
    """CuPy's Stream."""

    null: Stream

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ):
        if ptds:
            raise ValueError("the stand-in knows no per-thread default stream")
        self.queue = DEVICE.null if null else DEVICE.new_queue(blocking=not non_blocking)

    @property
    def ptr(self) -> int:
        return self.queue.ptr

    @property
    def done(self) -> bool:
        """Whether all is done; asking lets the device go on a little."""
        self.queue.finish(self.queue.done + 1)
        return not self.queue.pending

    @property
    def is_non_blocking(self) -> bool:
        return not self.queue.blocking

    def synchronize(self) -> None:
        DEVICE.refuse_in_capture("Stream.synchronize")
        self.queue.finish()
        DEVICE.check_guards()

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if self.queue.capture is not None:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureIsolation", "the stand-in knows no events in a capture"
            )
        event.wait_in(self.queue)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.queue is DEVICE.null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.queue.capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the stream is being captured already")
        self.queue.capture = []

    def end_capture(self) -> Graph:
        works = self.queue.capture
        if works is None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the stream is not being captured")
        self.queue.capture = None
        return Graph(works)

    def is_capturing(self) -> bool:
        return self.queue.capture is not None

    def use(self) -> Stream:
        DEVICE.streams()[-1] = self
        return self

    def __enter__(self) -> Stream:
        DEVICE.streams().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        DEVICE.streams().pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)


class SimulatedDevice:
    """All memory and all streams.

    Attributes
    ----------
    count : int or None
        Devices that the driver knows; None where there is no driver.
    total_bytes : int
        Memory of the device.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.reset()
        self.null = Queue(self, 0, True)
        self._queues = [self.null]
        self._allocations: weakref.WeakSet[Allocation] = weakref.WeakSet()
        self._quarantine: deque[Guarded] = deque()
        self._freed: deque[tuple[Guarded, Queue]] = deque()

    def reset(self) -> None:
        """Settings and current streams as they are by default."""
        self._thread = threading.local()
        self.count: int | None = 1
        self.total_bytes = 1 << 34

    # ---- memory ----

    def allocate(self, size: int, itemsize: int = 8) -> Allocation | None:
        """Memory of the current stream; None for no bytes."""
        self.refuse_in_capture("taking memory")
        if size == 0:
            return None
        if size > self.total_bytes - self.used_bytes():
            raise MemoryError(f"out of memory allocating {size} bytes")
        allocation = Allocation(size, itemsize, self.current().queue)
        self._allocations.add(allocation)
        return allocation

    def used_bytes(self) -> int:
        return sum(allocation.size for allocation in self._allocations)

    def freed(self, buffer: Guarded, queue: Queue) -> None:
        """Memory that nobody holds; told by the garbage collector, in the midst of anything."""
        self._freed.append((buffer, queue))

    def order_frees(self) -> None:
        """Put what was freed in the order of its stream, which may use it anew from then on."""
        while self._freed:
            buffer, queue = self._freed.popleft()
            queue.append(Work("a free", self._reuse(buffer, queue)))

    def _reuse(self, buffer: Guarded, queue: Queue) -> Callable[[], None]:
        def reuse() -> None:
            for other in self._queues:
                if other is not queue and any(buffer in work.buffers for work in other.pending):
                    raise KernelError(
                        "memory was freed on its stream while another stream, which "
                        "was not waited for, still has work on it"
                    )
            if buffer.damaged():
                raise KernelError("something wrote beside an array that has been freed since")
            buffer.poison()
            self._quarantine.append(buffer)
            while sum(kept.bytes.size for kept in self._quarantine) > _QUARANTINE_BYTES:
                self._check_quarantined(self._quarantine.popleft())

        return reuse

    def owner(self, address: int, size: int) -> Allocation | None:
        """The allocation that holds these bytes."""
        held = (a for a in self._allocations if a.holds(address, size))
        return next(held, None)

    def memory_at(self, address: int, size: int, what: str) -> tuple[Allocation, np.ndarray]:
        """The allocation that holds these bytes, and the bytes; raises where there is none."""
        allocation = self.owner(address, size)
        if allocation is None:
            raise CUDARuntimeError(
                "cudaErrorIllegalAddress", f"{what}: {size} bytes at {address:#x} are no array's"
            )
        first = address - allocation.ptr
        return allocation, allocation.buffer.bytes[first : first + size]

    def check_guards(self) -> None:
        """Raise where something was written beside an array, or into freed memory."""
        for allocation in list(self._allocations):
            if allocation.buffer.damaged():
                raise KernelError(f"something wrote beside an array of {allocation.size} bytes")
        with self.lock:
            for buffer in self._quarantine:
                self._check_quarantined(buffer)

    def _check_quarantined(self, buffer: Guarded) -> None:
        if buffer.damaged() or not buffer.poisoned():
            buffer.poison()
            raise KernelError("something wrote to memory that had been freed")

    # ---- streams ----

    def new_queue(self, blocking: bool) -> Queue:
        queue = Queue(self, 0x5000 + 16 * len(self._queues), blocking)
        self._queues.append(queue)
        return queue

    def queue_at(self, ptr: int) -> Queue:
        """The stream of this address."""
        for queue in self._queues:
            if queue.ptr == ptr:
                return queue
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle", f"no stream at {ptr:#x}")

    def queues_before(self, queue: Queue) -> list[Queue]:
        """What the next work of a stream waits for by itself: the default stream and the blocking
        ones wait for each other."""
        if queue is self.null:
            others = [other for other in self._queues[1:] if other.blocking]
        else:
            others = [self.null] if queue.blocking else []
        return [other for other in others if other.pending]

    def streams(self) -> list[Stream]:
        """The current streams of this thread, the innermost last."""
        if not hasattr(self._thread, "streams"):
            self._thread.streams = [Stream.null]
        return self._thread.streams

    def current(self) -> Stream:
        return self.streams()[-1]

    def refuse_in_capture(self, what: str) -> None:
        """Raise while any stream is being captured."""
        if any(queue.capture is not None for queue in self._queues):
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported", f"{what} while a stream is being captured"
            )

    def refuse_unfinished(self, allocation: Allocation | None) -> None:
        """Raise where another stream than was waited for still has work on an array."""
        for queue in self._queues:
            for work in queue.pending:
                if allocation is not None and allocation.buffer in work.buffers:
                    raise KernelError(
                        f"an array is read on the host while {work.what}, which uses it, waits on "
                        f"stream {queue.ptr:#x}, which nobody waited for"
                    )

    def synchronize(self) -> None:
        """Finish everything."""
        self.refuse_in_capture("synchronising the device")
        for queue in self._queues:
            queue.finish()
        self.check_guards()

    def forget_work(self) -> None:
        """Drop what is pending and what is being captured: after an error nothing else is sound."""
        for queue in self._queues:
            queue.pending.clear()
            queue.done = queue.given
            queue.capture = None

    def forget(self) -> None:
        """Drop all work and all damage, for whoever comes after a mistake."""
        self.forget_work()
        self.order_frees()
        self.forget_work()
        for buffer in (*(held.buffer for held in self._allocations), *self._quarantine):
            buffer.damaged()
        self._quarantine.clear()
        self.reset()

    def close(self) -> None:
        """Finish everything; raise where a capture was left open."""
        open_captures = [queue for queue in self._queues if queue.capture is not None]
        for queue in open_captures:
            queue.capture = None
        self.synchronize()
        if open_captures:
            raise KernelError(f"{len(open_captures)} captures were begun and not ended")


DEVICE = SimulatedDevice()
Stream.null = Stream(null=True)
