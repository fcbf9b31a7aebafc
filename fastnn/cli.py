"""The ``fastnn`` command: train, evaluate, predict, inspect, study, doctor.

Exit codes: 0 done, 1 the work failed (training diverged, a file could not be written), 2 bad usage
or bad input, 130 interrupted. Errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import fastnn

from . import backend, checks, cli_data, data, figures, layers, losses, optim, schedules, studies
from .perceptron import network
from .training_data import batch_rows
from .words import LANGUAGES, Words

DONE, FAILED, USAGE, BROKEN_PIPE, INTERRUPTED = 0, 1, 2, 141, 130


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
        return _report("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes standard output once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (fastnn.DivergedError, _SaveError, MemoryError) as error:
        return _report(error, FAILED)
    except (ValueError, ImportError, OSError) as error:
        return _report(error, USAGE)
    return DONE


class _SaveError(Exception):
    """The work was done and its result could not be written."""


def _report(error: object, code: int) -> int:
    if isinstance(error, OSError) and error.filename and error.strerror:
        error = f"{error.filename}: {error.strerror}"
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
        command.add_argument(
            "--part",
            choices=("all", *data.PARTS),
            default="all",
            help="of data that come in two parts, the one to take (%(default)s)",
        )
        _add_engine(command)
        command.set_defaults(run=run)
    text = "print a saved model's layers, shapes, parameters and plan"
    inspect = commands.add_parser("inspect", help=text, description=text)
    inspect.add_argument("model", metavar="MODEL", help="a file that fastnn train saved")
    inspect.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="rows a step (%(default)s)"
    )
    inspect.set_defaults(run=_inspect)
    _add_study(commands)
    text = "print versions, CPU features, threads, backends and the cache folder"
    commands.add_parser("doctor", help=text, description=text).set_defaults(run=_doctor)
    return parser


_DATA_HELP = (
    "a folder or file of MNIST-style IDX (plain or .gz) or of CIFAR's binary version, an .npz or "
    "a .csv file; "
    f"{cli_data.EMBEDDED!r} (unless a file of that name is there) is the embedded handwritten "
    "digits"
)
_LABEL_HELP = "the CSV column, or the array in an .npz, to predict"
_DROPOUT = 0.2
_ALL = "all"


def _add_train(commands: Any) -> None:
    text = "train a network, print its test accuracy and save it"
    train = commands.add_parser("train", help=text, description=text)

    def add(flag: str, metavar: str, text: str, default: Any = None, **settings: Any) -> None:
        shown = text if default is None else f"{text} (%(default)s)"
        train.add_argument(flag, metavar=metavar, help=shown, default=default, **settings)

    add("--data", "PATH", _DATA_HELP, cli_data.EMBEDDED)
    add("--label", "COL", _LABEL_HELP)
    add("--layers", "N,N", "widths of hidden layers", "256,128", type=_widths)
    add("--activation", "NAME", f"after each hidden layer: {_listed(layers.ACTIVATIONS)}", "relu")
    text = f"after each hidden layer ({_DROPOUT} for classes, 0 for numbers)"
    add("--dropout", "P", text, type=float)
    text = "share of each label that is spread over all classes"
    add("--label-smoothing", "P", text, 0.1, type=float)
    add("--optimizer", "NAME", _listed(optim.OPTIMIZERS), "adam")
    add("--lr", "RATE", "learning rate", 2e-3, type=float)
    add("--schedule", "NAME", f"of the learning rate: {_listed(schedules.BY_NAME)}", "cosine")
    add("--batch-size", "N", "rows a step, or 'full'", 32, type=_batch_size)
    add("--epochs", "N", "passes over the training data", 40, type=_positive)
    text = "stop after N epochs (10 if not given) without a better validation loss"
    add("--early-stopping", "N", text, type=_positive, nargs="?", const=10)
    add("--seed", "N", "of the split, weights and shuffles", 0, type=int)
    add("--out", "PATH", "where to save (named after the data if not given)", type=Path)
    add("--plot", "PATH", "draw the curves of loss and accuracy into a file, say .png", type=Path)
    text = "take labels that are whole numbers as numbers, not as classes"
    train.add_argument("--regression", action="store_true", help=text)
    train.add_argument("--quiet", action="store_true", help="print the test result only")
    _add_engine(train)
    train.set_defaults(run=_train)


def _add_study(commands: Any) -> None:
    text = "answer a question about training by an experiment"
    questions = (f"  {name:<15}{question}" for name, question in studies.STUDIES.items())
    study = commands.add_parser(
        "study",
        help=text,
        description=text,
        epilog="\n".join(("studies:", *questions, f"  {_ALL:<15}all of them in turn")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_argument("name", metavar="NAME", help="the study, see below")
    text = "a folder to write all numbers (CSV) and figures (PNG) into"
    study.add_argument("--out", metavar="DIR", type=Path, help=text)
    study.add_argument("--data", metavar="PATH", help=f"instead of the embedded: {_DATA_HELP}")
    study.add_argument("--label", metavar="COL", help=_LABEL_HELP)
    text = "of splits, weights and shuffles (%(default)s)"
    study.add_argument("--seed", metavar="N", type=int, default=0, help=text)
    text = "of the words in figures (%(default)s)"
    study.add_argument("--language", choices=LANGUAGES, default="en", help=text)
    study.set_defaults(run=_study)


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_positive, metavar="N", help="compute threads")
    command.add_argument("--backend", metavar="NAME", help=_listed(backend.BACKENDS))
    command.add_argument("--device", metavar="NAME", help="cpu, cuda or auto")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


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
    optimizer = checks.lookup("optimizer", arguments.optimizer, optim.OPTIMIZERS)(arguments.lr)
    schedule = schedules.as_schedule(arguments.schedule, arguments.epochs)
    smoothed = fastnn.CrossEntropyLoss(arguments.label_smoothing)
    parts = cli_data.read_parts(
        arguments.data, arguments.label, arguments.regression, arguments.seed
    )
    model = _build(arguments, parts)
    metric = "accuracy" if parts.classes else "r2"
    say = _nothing if arguments.quiet else print
    rows = batch_rows(arguments.batch_size, len(parts.train[0]))
    with _engine(arguments, backend.training_work(model.parameter_count, rows)):
        say(_opening(parts, model))
        history = model.fit(
            *parts.train,
            loss=smoothed if parts.classes else fastnn.MSELoss(),
            optimizer=optimizer,
            batch_size=arguments.batch_size,
            epochs=arguments.epochs,
            schedule=schedule,
            early_stopping=arguments.early_stopping,
            seed=arguments.seed,
            validation_data=parts.validation,
            metrics=[metric],
            callbacks=() if arguments.quiet else (_epoch_printer(arguments.epochs),),
            progress=sys.stderr.isatty() and not arguments.quiet,
        )
        if history.stopped_early:
            say(f"stopped after epoch {history.epochs}; the best weights are back")
        if parts.unit:
            parts.unit.remove(model)
        result = model.evaluate(*parts.test, metrics=[metric])
    print("test", _score(metric, result[metric]))
    with _saving(out):
        model.save(out)
    say(f"saved {out}")
    if arguments.plot:
        with _saving(arguments.plot):
            history.plot(arguments.plot)
        say(f"saved {arguments.plot}")


def _evaluate(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    dataset = cli_data.read(arguments.data, arguments.label, arguments.part)
    loss = losses.as_loss(model.loss, dataset.y)
    y = dataset.y
    if model.classes or dataset.classes or not loss.classifies:
        y = cli_data.targets(arguments.data, dataset, model.classes)
    metrics = None if loss.classifies else ["r2"]
    with _engine(arguments, backend.pass_work(model.parameter_count, len(y))):
        scores = model.evaluate(dataset.X, y, loss=loss, metrics=metrics)
    print(_scores(scores))


def _predict(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    inputs = cli_data.read_inputs(arguments.data, arguments.label, arguments.part)
    with _engine(arguments, backend.pass_work(model.parameter_count, len(inputs))):
        if _classifies(model):
            values = model.predict_proba(inputs)
            count = values.shape[1]
            names = model.classes or [str(number) for number in range(count)]
            if len(names) != count:
                raise ValueError(
                    f"{arguments.model} names {len(names)} classes; expected {count}, one for "
                    "each probability"
                )
            header = ["class", *(f"probability_{name}" for name in names)]
            first = [[names[number]] for number in values.argmax(axis=1)]
        else:
            values = model.predict(inputs)
            header = [f"output_{column}" for column in range(values.shape[1])]
            first = [[]] * len(values)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    # str() of a NumPy number is the shortest text that reads back the same.
    writer.writerows([*name, *map(str, row)] for name, row in zip(first, values, strict=True))


def _inspect(arguments: argparse.Namespace) -> None:
    model = fastnn.load(arguments.model)
    print(model)
    for name, value in (
        ("classes", ", ".join(model.classes or ())),
        ("loss", model.loss),
        ("optimizer", model.optimizer),
    ):
        if value:
            print(f"{name}: {value}")
    print(model.plan(arguments.batch_size, model.optimizer or "adam"))


def _study(arguments: argparse.Namespace) -> None:
    names = list(studies.STUDIES) if arguments.name == _ALL else [arguments.name]
    if arguments.out:
        with _saving(arguments.out):
            arguments.out.mkdir(parents=True, exist_ok=True)
    parts = None
    if arguments.data or arguments.label:
        source = arguments.data or cli_data.EMBEDDED
        parts = cli_data.read_parts(source, arguments.label, False, arguments.seed)
    refused = []
    # A missing package or font is told before the experiment.
    with figures.lettering(Words(arguments.language)) if arguments.out else nullcontext():
        for number, name in enumerate(names):
            taken = parts if arguments.name != _ALL or studies.takes_data(name) else None
            try:
                numbers = studies.run(name, taken, seed=arguments.seed)
            except ValueError as error:
                if arguments.name != _ALL:
                    raise
                _report(f"{name}: {error}", USAGE)
                refused.append(name)
                continue
            if number:
                print()
            _tell(numbers, arguments)
    if refused:
        raise ValueError(f"not all studies could be made: {_listed(refused)}")


def _tell(numbers: studies.Results, arguments: argparse.Namespace) -> None:
    """Print what a study shows; write it too, where a folder was named."""
    print(f"{numbers.name}: {studies.STUDIES[numbers.name]}", numbers, sep="\n\n")
    if arguments.out:
        with _saving(arguments.out):
            paths = numbers.save(arguments.out, arguments.language)
        print("", *(f"saved {path}" for path in paths), sep="\n")
    sys.stdout.flush()


def _doctor(arguments: argparse.Namespace) -> None:
    from .doctor import facts

    for name, value in facts():
        print(f"{name:<10}{value}")


# What the commands are made of


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _SaveError(f"{path} cannot be written: {error.strerror or error}") from error


def _output_path(arguments: argparse.Namespace) -> Path:
    """Where the model goes, refused before the training rather than after it."""
    name = Path(arguments.data).resolve().name.partition(".")[0]
    out: Path = arguments.out or Path(f"{name}.safetensors")
    _check_writable("--out", out)
    if arguments.plot:
        _check_writable("--plot", arguments.plot)
        figures.check_ending(arguments.plot)
    return out


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"{option}: {path} cannot be written: expected a file in a writable folder"
        )


@contextmanager
def _engine(arguments: argparse.Namespace, work: backend.Work) -> Iterator[None]:
    """Work with the threads, the backend and the device that were asked for."""
    if arguments.threads:
        fastnn.set_num_threads(arguments.threads)
    try:
        with fastnn.use_backend(arguments.backend) if arguments.backend else nullcontext():
            name = backend.for_device(arguments.device, work).name
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    with fastnn.use_backend(name):
        yield


def _build(arguments: argparse.Namespace, parts: cli_data.Parts) -> fastnn.Sequential:
    activation = checks.lookup("activation", arguments.activation, layers.ACTIVATIONS)
    dropout = arguments.dropout
    if dropout is None:
        dropout = _DROPOUT if parts.classes else 0.0
    model = network(parts, arguments.layers, activation, dropout=dropout, seed=arguments.seed)
    model.classes = parts.classes
    return model


def _classifies(model: fastnn.Sequential) -> bool:
    """Whether the outputs tell one class of several."""
    if isinstance(model.loss, fastnn.CrossEntropyLoss):
        return True
    if isinstance(model.loss, fastnn.BCEWithLogitsLoss):
        return model.plan().outputs == 1
    return isinstance(model[-1], fastnn.Softmax)


def _opening(parts: cli_data.Parts, model: fastnn.Sequential) -> str:
    rows = (len(targets) for _, targets in (parts.train, parts.validation, parts.test))
    if parts.classes:
        kind = f"{len(parts.classes)} classes"
    else:
        kind = "1 number" if parts.outputs == 1 else f"{parts.outputs} numbers"
    return (
        "{} training, {} validation, {} test rows; ".format(*rows)
        + f"{model.inputs} inputs to {kind}, {model.parameter_count} parameters; "
        + f"{fastnn.get_backend().name} backend"
    )


def _nothing(text: str) -> None:
    """Say nothing."""


def _epoch_printer(epochs: int) -> Callable[[Any], None]:
    """A callback that prints a line an epoch, above the progress bar where there is one."""
    from tqdm import tqdm

    digits = len(str(epochs))

    def show(info: Any) -> None:
        groups: dict[str, dict[str, float]] = {"training": {}, "validation": {}}
        for name, value in info.logs.items():
            if name != "lr":
                group = "validation" if name.startswith("val_") else "training"
                groups[group][name.removeprefix("val_")] = value
        cells = [f"{group} {_scores(scores):<30}" for group, scores in groups.items()]
        line = f"epoch {info.epoch:{digits}}/{epochs}   {' '.join(cells)}".rstrip()
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    return show


def _scores(scores: Mapping[str, float]) -> str:
    """Loss and metrics as words: ``loss 0.0712, accuracy 98.1 %``."""
    return ", ".join(_score(name, value) for name, value in scores.items())


def _score(name: str, value: float) -> str:
    return f"{name} {100 * value:.1f} %" if name == "accuracy" else f"{name} {value:.4f}"
