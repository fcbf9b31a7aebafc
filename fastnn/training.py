"""Training: ``fit``, its arguments and what they mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from . import backend as backends
from . import checks, losses, optim
from .early_stopping import EarlyStopping
from .history import EpochInfo, History
from .kernels.contract import PRECISIONS, check_precision
from .losses import Loss
from .metrics import Metric
from .progress import Progress
from .runs import Runs
from .schedules import Schedule
from .session import Session, Terms
from .steps import warn_of_python
from .training_data import ClassWeight, TrainingData

if TYPE_CHECKING:
    from .augment import Compose
    from .epoch_rows import Augment
    from .kernels.contract import Backend
    from .model import Sequential


def fit(
    model: Sequential,
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss | str | None = None,
    optimizer: optim.Optimizer | str | None = None,
    batch_size: int | str = 32,
    epochs: int = 1,
    shuffle: bool = True,
    sampling: str = "shuffle",
    seed: int = 0,
    validation_data: Sequence[ArrayLike] | None = None,
    schedule: Schedule | str | Callable[[int], float] | None = None,
    early_stopping: EarlyStopping | int | None = None,
    callbacks: Iterable[Callable[[EpochInfo], Any]] = (),
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    augment: Augment | Compose | None = None,
    metrics: Iterable[str | Metric] | None = None,
    history: str = "epoch",
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool | None = None,
    device: str | None = None,
    precision: str = "float32",
) -> History:
    """Train the network.

    Parameters
    ----------
    X : array (N, I), or (N, ...) with rows that flatten to I
        Any numeric dtype; converted as rows are gathered, never copied as a whole. A CuPy array, or
        a tensor of PyTorch or JAX on a GPU, stays where it is and is trained on there.
    y : array
        Class numbers (N,), probabilities or values (N, O).
    loss : Loss or str, optional
        Cross-entropy for integer ``y``, mean squared error for floating by default.
    optimizer : Optimizer or str, optional
        That of the last ``fit``, which continues, else ``Adam(1e-3)``. A new object starts anew.
    batch_size : int or "full", default 32
        1 is stochastic, "full" full-batch descent. The last short batch is used.
    epochs : int, default 1
    shuffle : bool, default True
        Take the rows in a new order each epoch.
    sampling : "shuffle" or "replacement", default "shuffle"
        "replacement" draws each row anew.
    seed : int, default 0
        Of shuffles and dropout: the same seed gives the same bits, at any number of threads.
    validation_data : (X, y) or (X, y, sample_weight), optional
    schedule : Schedule, str or callable, optional
        How the learning rate changes; see ``fastnn.schedules``.
    early_stopping : EarlyStopping or int, optional
        A number is its patience.
    callbacks : iterable of callable
        Each is called with an :class:`EpochInfo` after every epoch; training goes on with the
        weights that it leaves.
    sample_weight : array (N,), optional
        Weighted losses divide by the sum of the weights.
    class_weight : dict, array or "balanced", optional
        Multiplied into the sample weights.
    clip_norm, clip_value : float, optional
        The most that the norm of all gradients, or any element, may be; the norm first.
    augment : fastnn.augment.Compose or callable, optional
        Random changes of images, made for the next epoch by another thread while the present one
        trains. Or a function: ``augment(X, generator)`` gives the rows (N, I) of an epoch.
    metrics : iterable of str or callable, optional
        By default accuracy, where the loss has classes.
    history : "epoch" or "update", default "epoch"
        "update" keeps loss and learning rate of every update too.
    checkpoint : path, optional
        Written after every epoch and its callbacks.
    resume : bool, default False
        Go on from ``checkpoint``, if it is there: the bits are those of an unbroken run.
    progress : bool, optional
        A progress bar; by default where standard error is a terminal.
    device : "cpu", "cuda" or "auto", optional
        By default where X lies, or that of the backend in use. "auto" picks the GPU if there is one
        and a step is large enough, and says on standard error what it picked and why. Whatever
        the device, the weights are NumPy arrays between calls of ``fit``.
    precision : "float32", "tf32" or "bf16", default "float32"
        What a GPU rounds the factors of products to; sums stay in float32, and everything else is
        float32 too. The last two are faster and less exact.

    Returns
    -------
    History

    Raises
    ------
    ValueError, TypeError
        For arguments that do not fit; nothing has then changed.
    DivergedError
        Where the loss is no longer finite. ``model.history`` and the weights of the last good step
        are kept, as they are after ``KeyboardInterrupt``.

    Examples
    --------
    >>> import fastnn
    >>> X, y = fastnn.data.digits()
    >>> model = fastnn.Sequential(fastnn.Linear(64, 32), fastnn.ReLU(), fastnn.Linear(32, 10))
    >>> history = model.fit(X, y, epochs=3)
    >>> history["loss"][2] < history["loss"][0]
    True
    """
    terms = check_terms(
        epochs=epochs,
        shuffle=shuffle,
        sampling=sampling,
        schedule=schedule,
        callbacks=callbacks,
        clip_norm=clip_norm,
        clip_value=clip_value,
        augment=augment,
        metrics=metrics,
        history=history,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        precision=precision,
    )
    chosen = losses.as_loss(loss, y)
    data = TrainingData(model, X, y, chosen, sample_weight, class_weight, batch_size)
    backend = backend_for([model], data, device, precision)
    with backends.use_backend(backend.name):  # validation, metrics and callbacks follow
        session = Session(
            model,
            data,
            terms,
            backend,
            optimizer=optimizer,
            seed=seed,
            early_stopping=early_stopping,
            validation=(
                None if validation_data is None else validation_rows(model, validation_data, chosen)
            ),
        )
        warn_of_python(data.layers)
        with Progress(progress, session.updates) as bar:
            return session.run(bar, Runs())


def check_terms(
    *,
    epochs: int,
    shuffle: bool,
    sampling: str,
    schedule: Schedule | str | Callable[[int], float] | None,
    callbacks: Iterable[Callable[[EpochInfo], Any]],
    clip_norm: float | None,
    clip_value: float | None,
    augment: Augment | Compose | None,
    metrics: Iterable[str | Metric] | None,
    history: str,
    checkpoint: str | os.PathLike | None,
    resume: bool,
    progress: bool | None,
    precision: str,
) -> Terms:
    """The terms of a training from arguments of :func:`fit`, which raise as there."""
    return Terms(
        epochs=checks.integer("epochs", epochs, at_least=0),
        shuffle=checks.boolean("shuffle", shuffle),
        sampling=sampling,
        schedule=schedule,
        callbacks=_functions(callbacks),
        clip_norm=_limit("clip_norm", clip_norm),
        clip_value=_limit("clip_value", clip_value),
        augment=_augment(augment),
        metrics=metrics,
        keeps_updates=checks.lookup("history", history, {"epoch": False, "update": True}),
        checkpoint=_checkpoint(checkpoint, checks.boolean("resume", resume)),
        resume=resume,
        progress=progress,
        precision=precision,
    )


def backend_for(
    models: Iterable[Sequential], data: TrainingData, device: str | None, precision: str
) -> Backend:
    """The backend that trains networks on data, all of them like these, on one device."""
    models = list(models)
    weights = max(model.parameter_count for model in models)
    work = backends.training_work(weights, data.batch_rows)
    backend = backends.for_data(device, "X", data.x, work)
    checks.lookup("precision", precision, dict.fromkeys(PRECISIONS))
    for dtype in {model.dtype for model in models}:
        check_precision(precision, dtype, backend.name)
    return backend


def validation_rows(
    model: Sequential, validation_data: Sequence[ArrayLike], loss: Loss
) -> TrainingData:
    """The argument ``validation_data`` as rows to measure on, checked."""
    expected = "expected (X, y) or (X, y, sample_weight)"
    if not isinstance(validation_data, (tuple, list)):
        raise TypeError(f"validation_data is a {type(validation_data).__name__}; {expected}")
    if not 2 <= len(validation_data) <= 3:
        raise ValueError(f"validation_data has {len(validation_data)} parts; {expected}")
    X, y, *weight = validation_data
    try:
        return TrainingData(model, X, y, loss, *weight)
    except (ValueError, TypeError) as error:
        raise type(error)(f"validation_data: {error}") from None


def _functions(
    callbacks: Iterable[Callable[[EpochInfo], Any]],
) -> tuple[Callable[[EpochInfo], Any], ...]:
    functions = tuple(callbacks) if isinstance(callbacks, Iterable) else None
    if functions is None or not all(map(callable, functions)):
        raise TypeError(
            f"callbacks is {callbacks!r}; expected a list of functions, each called with an "
            "EpochInfo"
        )
    return functions


def _limit(name: str, value: float | None) -> float | None:
    return None if value is None else checks.number(name, value, above=0.0)


def _augment(augment: Augment | Compose | None) -> Augment | Compose | None:
    if not (augment is None or callable(augment)):
        raise TypeError(
            f"augment is {augment!r}; expected a function(X, generator) or an augment.Compose"
        )
    return augment


def _checkpoint(checkpoint: str | os.PathLike | None, resume: bool) -> Path | None:
    if checkpoint is None:
        if resume:
            raise ValueError("resume=True needs checkpoint=, the file to go on from")
        return None
    path = Path(checkpoint)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"checkpoint is {path}, in a folder that does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint is {path}, a folder; expected a file")
    return path
