"""Many networks trained in one call: a thread takes each from its first epoch to its last."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dataclasses
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import backend as backends
from . import checks, losses, optim, training
from .early_stopping import EarlyStopping
from .history import History
from .kernels.interrupts import interrupts_later
from .plan import can_lower
from .progress import Progress
from .runs import Runs
from .schedules import Schedule
from .session import Session, Terms
from .steps import DivergedError, warn_of_python
from .training_data import TrainingData

if TYPE_CHECKING:
    from .model import Sequential

_FOR_EACH = {"optimizer": "optimizers", "seed": "seeds"}
"""Arguments of ``fit`` that have another name where there is one for each network."""
_FOR_ONE = ("callbacks", "augment", "checkpoint", "resume")
"""Arguments of ``fit`` that make sense for one network only."""
_MOST_NAMED = 10
"""Diverged networks that a warning names."""
_TERMS = tuple(inspect.signature(training.check_terms).parameters)
_DATA = ("sample_weight", "class_weight", "batch_size")


def fit_many(
    models: Sequence[Sequential],
    X: ArrayLike,
    y: ArrayLike,
    *,
    rows: Sequence[ArrayLike] | None = None,
    optimizers: optim.Optimizer | str | Sequence[optim.Optimizer | str | None] | None = None,
    seeds: int | Sequence[int] | None = None,
    early_stopping: EarlyStopping | int | Sequence[EarlyStopping | int | None] | None = None,
    **fit_keywords: Any,
) -> list[History]:
    """Train many networks on the same data; each ends as :meth:`Sequential.fit` would leave it.

    Weights, histories and the state of optimizers have the bits of
    ``models[i].fit(X[rows[i]], y[rows[i]], optimizer=optimizers[i], seed=seeds[i], ...)``, at any
    number of threads. A thread takes one network after the other, from its first epoch to its last,
    so this pays for networks that are too small to share a step among threads.

    Parameters
    ----------
    models : sequence of Sequential
        Each once; they may differ in layers and dtype.
    X : array (N, I)
        As for :meth:`Sequential.fit`; checked once, and copied for none of the networks.
    y : array (N,) or (N, O)
    rows : sequence of integer arrays, optional
        For each network the numbers of the rows that it is trained on; all rows by default.
    optimizers : Optimizer, str or sequence of these, optional
        One for each network; a single one is copied for each. By default, and where the sequence
        has None, as in ``fit``.
    seeds : int or sequence of int, default 0
        Of shuffles and dropout: one for all networks, or one for each.
    early_stopping : EarlyStopping, int or sequence of these, optional
        One for all networks, or one for each.
    **fit_keywords
        Any others of ``fit``, the same for all networks, but for ``callbacks``, ``augment``,
        ``checkpoint`` and ``resume``. ``sample_weight`` is that of the rows of X; ``class_weight``
        "balanced" counts the rows of each network.

    Returns
    -------
    list of History
        In the order of ``models``. Where the loss of a network did not stay finite, its
        ``diverged`` says so and its model has the last good weights; the others are trained to
        their end, and a RuntimeWarning tells how many diverged.

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; no network has then changed.
    KeyboardInterrupt
        After Ctrl-C, once every network that had begun has the weights and the history of its last
        good step; those that had not begun are as they were.

    Examples
    --------
    A sweep over learning rates:

    >>> import numpy as np
    >>> import fastnn
    >>> X, y = fastnn.data.digits()
    >>> def network(seed):
    ...     layers = fastnn.Linear(64, 16), fastnn.ReLU(), fastnn.Linear(16, 10)
    ...     return fastnn.Sequential(*layers, seed=seed)
    >>> rates = [1e-4, 1e-3, 1e-2]
    >>> models = [network(seed=0) for rate in rates]
    >>> histories = fit_many(models, X, y, optimizers=[fastnn.Adam(rate) for rate in rates])
    >>> best = min(histories, key=lambda history: history["loss"][-1])
    >>> rates[histories.index(best)]
    0.01

    Cross-validation: a network for each fold, trained on the rows of the others.

    >>> folds = np.array_split(np.random.default_rng(0).permutation(len(X)), 3)
    >>> others = [np.concatenate(folds[:i] + folds[i + 1 :]) for i in range(3)]
    >>> models = [network(seed=i) for i in range(3)]
    >>> histories = fit_many(models, X, y, rows=others, seeds=range(3), epochs=10)
    >>> scores = [m.evaluate(X[fold], y[fold]) for m, fold in zip(models, folds)]
    >>> all(score["accuracy"] > 0.7 for score in scores)
    True
    """
    keywords = _all_keywords(fit_keywords)
    tasks = _tasks(_networks(models), rows, optimizers, seeds, early_stopping)
    sessions = _sessions(tasks, X, y, keywords)
    in_python = next((s for s in sessions if not can_lower(s.data.layers)), None)
    if in_python is not None:
        warn_of_python(in_python.data.layers)
    if sessions:
        _train(sessions, keywords["progress"])
    histories = [session.history for session in sessions]
    _warn_of_diverged(histories)
    return histories


# -- what is to be done, checked before anything changes --


class _Task(NamedTuple):
    """What differs from network to network; of it only the row numbers are checked."""

    model: Sequential
    rows: np.ndarray | None
    optimizer: optim.Optimizer | str | None
    seed: int
    early_stopping: EarlyStopping | int | None


def _tasks(
    models: list[Sequential],
    rows: Sequence[ArrayLike] | None,
    optimizers: Any,
    seeds: Any,
    early_stopping: Any,
) -> list[_Task]:
    count = len(models)
    if isinstance(optimizers, optim.Optimizer):
        optimizers = [copy.deepcopy(optimizers) for _ in models]
    columns = (
        [None] * count if rows is None else _rows(_for_each("rows", rows, count)),
        _for_each("optimizers", optimizers, count),
        _for_each("seeds", 0 if seeds is None else seeds, count),
        _for_each("early_stopping", early_stopping, count),
    )
    return [_Task(*parts) for parts in zip(models, *columns, strict=True)]


def _networks(models: Sequence[Sequential]) -> list[Sequential]:
    from .model import Sequential

    if isinstance(models, Sequential) or not isinstance(models, Sequence):
        raise TypeError(f"models is a {type(models).__name__}; expected a list of Sequential")
    seen: dict[int, int] = {}
    for number, model in enumerate(models):
        if not isinstance(model, Sequential):
            raise TypeError(
                f"models[{number}] is a {type(model).__name__}; expected a fastnn.Sequential"
            )
        first = seen.setdefault(id(model), number)
        if first != number:
            raise ValueError(
                f"models[{first}] and models[{number}] are the same network; expected each once"
            )
    return list(models)


def _all_keywords(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``fit`` that are the same for all networks, with its own defaults."""
    parameters = inspect.signature(training.fit).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for name, plural in _FOR_EACH.items():
        if name in given:
            raise TypeError(f"fit_many takes {plural}, one for each network, rather than {name}")
    del defaults["optimizer"], defaults["seed"], defaults["early_stopping"]
    for name in given:
        if name not in defaults:
            raise checks.unknown_name("argument of fit_many", name, defaults)
        if name in _FOR_ONE:
            raise TypeError(f"fit_many takes no {name}: that is for one network, trained by fit")
    return defaults | given


def _rows(rows: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Row numbers as the kernels read them; whether X has such rows is checked with X."""
    return [_row_numbers(f"rows[{number}]", numbers) for number, numbers in enumerate(rows)]


def _row_numbers(name: str, numbers: ArrayLike) -> np.ndarray:
    array = np.asarray(numbers)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        hint = "; of a mask, np.flatnonzero(mask)" if array.dtype.kind == "b" else ""
        raise TypeError(
            f"{name} has dtype {array.dtype} and shape {array.shape}; expected row numbers, "
            f"integers of shape (rows,){hint}"
        )
    if not array.size:
        raise ValueError(f"{name} is empty; expected at least one row")
    return np.ascontiguousarray(array, np.int64)


def _for_each(name: str, values: Any, count: int) -> list[Any]:
    """A value for each network, from one for all or from a sequence."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        return [values] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries; expected {count}, one for each model")
    return list(values)


def _sessions(
    tasks: list[_Task], X: ArrayLike, y: ArrayLike, keywords: Mapping[str, Any]
) -> list[Session]:
    """A training for each task."""
    terms = training.check_terms(**{name: keywords[name] for name in _TERMS})
    if not tasks:
        return []
    loss = losses.as_loss(keywords["loss"], y)
    settings = {name: keywords[name] for name in _DATA}
    shared = _Shared(lambda model: TrainingData(model, X, y, loss, **settings))
    data = []
    for number, task in enumerate(tasks):
        with _naming(number):
            data.append(shared.of(task.model, task.rows))
    models = [task.model for task in tasks]
    backend = training.backend_for(models, data[0], keywords["device"], terms.precision)
    held_out = keywords["validation_data"]
    validation = _Shared(lambda model: training.validation_rows(model, held_out, loss))
    sessions = []
    with backends.use_backend(backend.name):
        for number, task in enumerate(tasks):
            with _naming(number):
                session = Session(
                    task.model,
                    data[number],
                    _with_own_schedule(terms),
                    backend,
                    optimizer=task.optimizer,
                    seed=task.seed,
                    early_stopping=task.early_stopping,
                    validation=None if held_out is None else validation.of(task.model, None),
                )
            sessions.append(session)
    _check_optimizers(sessions)
    return sessions


def _check_optimizers(sessions: list[Session]) -> None:
    seen: dict[int, int] = {}
    for number, session in enumerate(sessions):
        first = seen.setdefault(id(session.optimizer), number)
        if first != number:
            raise ValueError(
                f"models[{first}] and models[{number}] have the same optimizer; expected one for "
                "each"
            )


class _Shared:
    """Data that are checked and converted once for all networks that take them alike."""

    def __init__(self, make: Callable[[Sequential], TrainingData]) -> None:
        self._make = make
        self._known: list[TrainingData] = []

    def of(self, model: Sequential, rows: np.ndarray | None) -> TrainingData:
        """The data for a network, or these rows of them."""
        data = next((data for data in self._known if data.suits(model)), None)
        if data is None:
            data = self._make(model)
            self._known.append(data)
        return data.of(model, rows)


def _with_own_schedule(terms: Terms) -> Terms:
    """The terms for one network: a schedule may have a state."""
    if not isinstance(terms.schedule, Schedule):
        return terms
    return dataclasses.replace(terms, schedule=copy.deepcopy(terms.schedule))


@contextlib.contextmanager
def _naming(number: int) -> Iterator[None]:
    """Say in errors which network they are about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"models[{number}]: {error}") from None


# -- doing it --


def _train(sessions: list[Session], progress: bool | None) -> None:
    """Do all trainings; the threads that do them end before this does."""
    backend = sessions[0].backend
    threads = 1 if backend.name == "cupy" else min(backends.get_num_threads(), len(sessions))
    total = sum(session.updates for session in sessions)
    with backends.use_backend(backend.name), Progress(progress, total) as bar:
        crew, pool = _Crew(sessions, bar), ThreadPoolExecutor(threads, "fit_many")
        try:
            with interrupts_later():  # a thread that is being started would not be waited for
                contexts = [contextvars.copy_context() for _ in range(threads)]
                futures = [pool.submit(context.run, crew.work) for context in contexts]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            crew.stopped = True
            with interrupts_later():
                pool.shutdown()
    for future in futures:
        future.result()


class _Crew:
    """Threads that take trainings from one list and move one bar.

    Attributes
    ----------
    stopped : bool
        Set to end all trainings where they stand.
    """

    def __init__(self, sessions: list[Session], bar: Progress) -> None:
        self.stopped = False
        self._sessions, self._bar = iter(sessions), bar
        self._lock = threading.Lock()

    def work(self) -> None:
        """Take one training after the other, as long as there are any."""
        runs = Runs()
        with backends.one_thread():
            while (session := self._next()) is not None:
                part = _Part(self, session.updates)
                try:
                    session.run(part, runs)
                except DivergedError:
                    pass  # its history says so
                except KeyboardInterrupt:
                    return
                part.end()

    def _next(self) -> Session | None:
        with self._lock:
            return None if self.stopped else next(self._sessions, None)

    def move(self, updates: int) -> None:
        """Count updates that any of the trainings has made."""
        with self._lock:
            self._bar.move(updates)


class _Part(Progress):
    """One training's part of the bar, where it also learns that all are to end."""

    def __init__(self, crew: _Crew, updates: int) -> None:
        self._crew, self._left = crew, updates

    def move(self, updates: int) -> None:
        self._left -= updates
        self._crew.move(updates)
        if self._crew.stopped:
            raise KeyboardInterrupt

    def show(self, logs: Mapping[str, float]) -> None:
        """Say nothing: the bar is that of all."""

    def end(self) -> None:
        """Count what is left of a training that ended early."""
        self._crew.move(self._left)


def _warn_of_diverged(histories: list[History]) -> None:
    diverged = [f"models[{n}]" for n, history in enumerate(histories) if history.diverged]
    if diverged:
        named = ", ".join(diverged[:_MOST_NAMED]) + ", ..." * (len(diverged) > _MOST_NAMED)
        warnings.warn(
            f"{len(diverged)} of {len(histories)} networks diverged and have their last good "
            f"weights: {named}; history.diverged says at which update",
            RuntimeWarning,
            stacklevel=3,
        )
