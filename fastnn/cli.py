"""The ``fastnn`` command: train, evaluate, predict, inspect, doctor.

Exit codes: 0 done, 1 the work failed (training diverged, a file could not be written), 2 bad usage
or bad input, 130 interrupted. Errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fastnn

from . import checks

if TYPE_CHECKING:
    import numpy as np

    from .data import Dataset

DONE, FAILED, USAGE, BROKEN_PIPE, INTERRUPTED = 0, 1, 2, 141, 130

EMBEDDED = "digits"
FRACTIONS = (0.7, 0.15, 0.15)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``fastnn`` command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the command's name; those of the process by default.

    Returns
    -------
    int
        The exit code: 0, 1, 2, 130, or 141 where the reader of the output went away.

    Raises
    ------
    SystemExit
        For ``--help``, ``--version`` and arguments that do not parse.

    Examples
    --------
    >>> main(["train", "--data", "no-such-file.csv"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _report("interrupted; nothing was saved", INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (fastnn.DivergedError, _SaveError, MemoryError) as error:
        return _report(error, FAILED)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _report(error, USAGE)
    return DONE


class _SaveError(Exception):
    """The work was done and its result could not be written."""


def _report(error: object, code: int) -> int:
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"fastnn: error: {message}", file=sys.stderr)
    return code


# The arguments


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"fastnn: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastnn", description="Train and run dense neural networks.")
    parser.add_argument("--version", action="version", version=f"fastnn {fastnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    for name, run, text in (
        ("evaluate", _evaluate, "print a saved model's loss and accuracy on a data set"),
        ("predict", _predict, "print a saved model's predictions for a data set as CSV"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", metavar="MODEL", help="a file that fastnn train saved")
        command.add_argument("data", metavar="DATA", help=_DATA_HELP)
        command.add_argument("--label", metavar="COL", help=_LABEL_HELP)
        _add_engine(command)
        command.set_defaults(run=run)
    text = "print a saved model's layers, shapes, parameters and plan"
    inspect = commands.add_parser("inspect", help=text, description=text)
    inspect.add_argument("model", metavar="MODEL", help="a file that fastnn train saved")
    inspect.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="rows a step (%(default)s)"
    )
    inspect.set_defaults(run=_inspect)
    text = "print versions, CPU features, threads, backends and the cache folder"
    commands.add_parser("doctor", help=text, description=text).set_defaults(run=_doctor)
    return parser


_DATA_HELP = (
    f"a folder or file of MNIST-style IDX (plain or .gz), an .npz or a .csv file; {EMBEDDED!r} "
    "(unless a file of that name is there) is the embedded handwritten digits"
)
_LABEL_HELP = "the CSV column to predict"


def _add_train(commands: Any) -> None:
    text = "train a network, print its test accuracy and save it"
    train = commands.add_parser("train", help=text, description=text)

    def add(flag: str, metavar: str, text: str, default: Any = None, **settings: Any) -> None:
        shown = text if default is None else f"{text} (%(default)s)"
        train.add_argument(flag, metavar=metavar, help=shown, default=default, **settings)

    add("--data", "PATH", _DATA_HELP, EMBEDDED)
    add("--label", "COL", _LABEL_HELP)
    add("--layers", "N,N", "widths of hidden layers", "256,128", type=_widths)
    add("--activation", "NAME", "after each hidden layer", "relu")
    add("--dropout", "P", "after each hidden layer", 0.2, type=float)
    add("--optimizer", "NAME", "such as sgd, momentum, adam, adamw", "adam")
    add("--lr", "RATE", "learning rate", 2e-3, type=float)
    add("--schedule", "NAME", "how the learning rate changes", "cosine")
    add("--batch-size", "N", "rows a step, or 'full'", 32, type=_batch_size)
    add("--epochs", "N", "passes over the training data", 30, type=_positive)
    text = "stop after N epochs (10 if not given) without a better validation loss"
    add("--early-stopping", "N", text, type=_positive, nargs="?", const=10)
    add("--seed", "N", "of the split, weights and shuffles", 0, type=int)
    add("--out", "PATH", "where to save (named after the data if not given)", type=Path)
    train.add_argument("--quiet", action="store_true", help="print the test result only")
    _add_engine(train)
    train.set_defaults(run=_train)


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_positive, metavar="N", help="compute threads")
    command.add_argument("--backend", metavar="NAME", help="numpy, numba or cupy")
    command.add_argument("--device", metavar="NAME", help="cpu or cuda")


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return value


def _batch_size(text: str) -> int | str:
    return "full" if text == "full" else _positive(text)


def _widths(text: str) -> list[int]:
    return [_positive(width.strip()) for width in text.split(",")] if text else []


# The commands


def _train(arguments: argparse.Namespace) -> None:
    out = _output_path(arguments)
    dataset = _read(arguments)
    parts = fastnn.data.split(dataset.X, dataset.y, FRACTIONS, seed=arguments.seed)
    train, validation, test = parts
    classifies = dataset.y.dtype.kind in "iu"
    outputs = int(dataset.y.max()) + 1 if classifies else dataset.y[0].size
    model = _build(arguments, train[0], outputs)
    show_bar = sys.stderr.isatty() and not arguments.quiet
    with _engine(arguments):
        if not arguments.quiet:
            print(_opening(parts, model))
        model.fit(
            *train,
            optimizer=_optimizer(arguments),
            batch_size=arguments.batch_size,
            epochs=arguments.epochs,
            schedule=arguments.schedule,
            early_stopping=arguments.early_stopping,
            seed=arguments.seed,
            validation_data=validation,
            metrics=["accuracy" if classifies else "r2"],
            callbacks=() if arguments.quiet else (_epoch_printer(arguments.epochs),),
            progress=show_bar,
            device=arguments.device,
        )
        print("test", _scores(model.evaluate(*test)))
    try:
        model.save(out)
    except OSError as error:
        raise _SaveError(f"cannot write {out}: {error}") from error
    if not arguments.quiet:
        print(f"saved {out}")


def _evaluate(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    dataset = _read(arguments)
    with _engine(arguments):
        print(_scores(model.evaluate(dataset.X, dataset.y)))


def _predict(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    inputs = _read_inputs(arguments)
    with _engine(arguments):
        outputs = model.predict(inputs)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(f"output_{column}" for column in range(outputs.shape[1]))
    # str() of a NumPy number is the shortest text that reads back the same.
    writer.writerows(map(str, row) for row in outputs)


def _inspect(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    print(model)
    print(model.plan(arguments.batch_size))


def _doctor(arguments: argparse.Namespace) -> None:
    from .doctor import facts

    for name, value in facts():
        print(f"{name:<14}{value}")


# What the commands are made of


def _output_path(arguments: argparse.Namespace) -> Path:
    """Where the model goes, refused before the training rather than after it."""
    out: Path = arguments.out or Path(Path(arguments.data).name.partition(".")[0] + ".safetensors")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out: {out} cannot be written: expected a file in a writable folder")
    return out


def _read(arguments: argparse.Namespace) -> Dataset:
    if _is_embedded(arguments.data):
        return fastnn.data.digits()
    return fastnn.data.load(arguments.data, label=arguments.label)


def _read_inputs(arguments: argparse.Namespace) -> np.ndarray:
    if _is_embedded(arguments.data):
        return fastnn.data.digits().X
    return fastnn.data.load_inputs(arguments.data, label=arguments.label)


def _is_embedded(source: str) -> bool:
    return source == EMBEDDED and not Path(source).exists()


@contextmanager
def _engine(arguments: argparse.Namespace) -> Iterator[None]:
    if arguments.threads:
        fastnn.set_num_threads(arguments.threads)
    with fastnn.use_backend(arguments.backend) if arguments.backend else nullcontext():
        yield


def _build(arguments: argparse.Namespace, inputs: np.ndarray, outputs: int) -> fastnn.Sequential:
    layers: list[Any] = [fastnn.Standardize.fit(inputs)]
    width = inputs.shape[1]
    for hidden in arguments.layers:
        layers += [fastnn.Linear(width, hidden), _activation(arguments.activation)]
        if arguments.dropout:
            layers.append(fastnn.Dropout(arguments.dropout))
        width = hidden
    return fastnn.Sequential(*layers, fastnn.Linear(width, outputs), seed=arguments.seed)


def _activation(name: str) -> Any:
    from .layers import ACTIVATIONS

    return checks.lookup("activation", name, ACTIVATIONS)()


def _optimizer(arguments: argparse.Namespace) -> fastnn.Optimizer:
    from .optim import OPTIMIZERS

    return checks.lookup("optimizer", arguments.optimizer, OPTIMIZERS)(arguments.lr)


def _opening(parts: Sequence[Any], model: fastnn.Sequential) -> str:
    training, validation, test = (len(targets) for _, targets in parts)
    return (
        f"{training} training, {validation} validation, {test} test rows; "
        f"{model.parameter_count} parameters; {fastnn.get_backend()} backend"
    )


def _epoch_printer(epochs: int) -> Callable[[Any], None]:
    """A callback that prints a line an epoch, above the progress bar where there is one."""
    from tqdm import tqdm

    digits = len(str(epochs))

    def show(info: Any) -> None:
        validation = {
            name.removeprefix("val_"): value
            for name, value in info.logs.items()
            if name.startswith("val_")
        }
        training = {name: info.logs[name] for name in validation}
        line = f"epoch {info.epoch:{digits}}/{epochs}"
        line += f"   training {_scores(training)}   validation {_scores(validation)}"
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    return show


def _scores(scores: dict[str, float]) -> str:
    """Loss and metrics as words, the metrics first: ``accuracy 98.1 %, loss 0.0712``."""
    order = sorted(scores, key=lambda name: name == "loss")
    return ", ".join(
        f"{name} {100 * scores[name]:.1f} %" if name == "accuracy" else f"{name} {scores[name]:.4f}"
        for name in order
    )
