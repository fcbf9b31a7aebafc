"""CIFAR's binary files, made here: what is read, and the damage that files suffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnn import augment, cli, data

NAMES_10 = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
NAMES_100 = [f"fine {n:02}" for n in range(100)]
FILES_10 = [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]
BLOCK = 256
"""Records that the reader takes at once; sizes about it are tried."""


def colours(count, seed=0):
    """Images (B, 32, 32, 3) of which no two and no two colours are alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def record(labels, image):
    """The bytes of one image as the format has it, put together one by one."""
    planes = [image[row][column][k] for k in range(3) for row in range(32) for column in range(32)]
    return bytes([*labels, *planes])


def records(labels, images):
    """The same for many; labels (B, 1) or (B, 2)."""
    planes = np.moveaxis(images, -1, 1).reshape(len(images), -1)
    return np.hstack([np.asarray(labels, np.uint8), planes]).tobytes()


def write_10(folder, count=3, names=NAMES_10):
    """CIFAR-10 with so many images a file; all images and labels, in order."""
    folder.mkdir(exist_ok=True)
    images, labels = colours(6 * count), np.arange(6 * count)[:, None] % 10
    for n, name in enumerate(FILES_10):
        part = slice(n * count, (n + 1) * count)
        (folder / name).write_bytes(records(labels[part], images[part]))
    if names is not None:
        (folder / "batches.meta.txt").write_text("\n".join([*names, "", ""]))
    return images, labels[:, 0]


def write_100(folder, count=4):
    folder.mkdir(exist_ok=True)
    images = colours(2 * count)
    labels = np.stack([np.arange(2 * count) % 20, 99 - np.arange(2 * count)], axis=1)
    for n, name in enumerate(["train.bin", "test.bin"]):
        part = slice(n * count, (n + 1) * count)
        (folder / name).write_bytes(records(labels[part], images[part]))
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES_100) + "\n")
    return images, labels[:, 1]


def rows_of(images):
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def test_the_bytes_of_one_record(tmp_path):
    image = colours(1)[0]
    (tmp_path / "one.bin").write_bytes(record([7], image))
    dataset = data.load(tmp_path / "one.bin")
    np.testing.assert_array_equal(
        dataset.X.reshape(32, 32, 3), rows_of(image[None]).reshape(image.shape)
    )
    assert (dataset.X.dtype, dataset.y.dtype, dataset.y.tolist()) == (np.float32, np.int64, [7])
    assert dataset.X.shape == (1, 3072) and dataset.classes is None
    (tmp_path / "train.bin").write_bytes(record([19, 99], image))
    X, y = data.load(tmp_path / "train.bin")
    np.testing.assert_array_equal(X, dataset.X)
    assert y.tolist() == [99]


@pytest.mark.parametrize("write, names", [(write_10, NAMES_10), (write_100, NAMES_100)])
def test_a_folder_and_its_parts(tmp_path, write, names):
    images, labels = write(tmp_path)
    test = 3 if write is write_10 else 4
    for part, rows in (
        ("all", slice(None)),
        ("train", slice(None, -test)),
        ("test", slice(-test, None)),
    ):
        dataset = data.load(tmp_path, part=part)
        np.testing.assert_array_equal(dataset.X, rows_of(images[rows]))
        assert dataset.y.tolist() == labels[rows].tolist()
        assert dataset.classes == tuple(names)
        np.testing.assert_array_equal(data.load_inputs(tmp_path, part=part), dataset.X)


def test_one_file_of_a_folder_has_its_class_names(tmp_path):
    images, labels = write_10(tmp_path)
    dataset = data.load(tmp_path / "data_batch_2.bin")
    np.testing.assert_array_equal(dataset.X, rows_of(images[3:6]))
    assert dataset.y.tolist() == labels[3:6].tolist() and dataset.classes == tuple(NAMES_10)
    with pytest.raises(ValueError, match="part='test' is for data in two parts"):
        data.load(tmp_path / "data_batch_2.bin", part="test")


@pytest.mark.parametrize(
    "write, name", [(write_10, "cifar-10-batches-bin"), (write_100, "cifar-100-binary")]
)
def test_the_folder_that_an_archive_was_unpacked_in(tmp_path, write, name):
    images, labels = write(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        X, y = data.load(path)
        np.testing.assert_array_equal(X, rows_of(images))
        assert y.tolist() == labels.tolist()


def test_without_class_names_there_are_numbers(tmp_path):
    _, labels = write_10(tmp_path, names=None)
    dataset = data.load(tmp_path)
    assert dataset.classes is None and dataset.y.tolist() == labels.tolist()


def test_class_names_keep_their_numbers(tmp_path):
    write_10(tmp_path, names=NAMES_10[::-1])
    dataset = data.load(tmp_path, part="test")
    assert dataset.classes == tuple(NAMES_10[::-1])
    assert dataset.y.tolist() == [5, 6, 7]


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_more_records_than_are_turned_at_once(tmp_path, count):
    images, labels = colours(count), np.arange(count)[:, None] % 10
    (tmp_path / "some.bin").write_bytes(records(labels, images))
    X, y = data.load(tmp_path / "some.bin")
    np.testing.assert_array_equal(X, rows_of(images))
    np.testing.assert_array_equal(y, labels[:, 0])


def test_augmentation_takes_the_rows(tmp_path):
    images, _ = write_10(tmp_path)
    flipped = augment.Compose([augment.HorizontalFlip(1.0)], shape=(32, 32, 3))
    changed = flipped(data.load(tmp_path).X)
    np.testing.assert_array_equal(changed, rows_of(images[:, :, ::-1]))


# Damage


def assert_refused(path, named, message, **arguments):
    for read in (data.load, data.load_inputs):
        with pytest.raises(ValueError, match=message) as caught:
            read(path, **arguments)
        assert str(caught.value).startswith(f"{named}: ")


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
@pytest.mark.parametrize("write, size", [(write_10, 3073), (write_100, 3074)])
def test_a_file_that_is_cut_short_or_goes_on(tmp_path, write, size, change):
    write(tmp_path)
    damaged = tmp_path / (FILES_10[3] if write is write_10 else "train.bin")
    content = change(damaged.read_bytes())
    damaged.write_bytes(content)
    message = f"{len(content)} bytes; expected whole records of {size} bytes"
    for path in (tmp_path, damaged):
        assert_refused(path, damaged, message)
    assert len(data.load(tmp_path, part="test").y) in (3, 4)


def test_labels_beyond_the_classes(tmp_path):
    images = colours(BLOCK + 2)
    labels = np.zeros((BLOCK + 2, 1), np.uint8)
    labels[BLOCK + 1] = 10
    ten, hundred = tmp_path / "data_batch_1.bin", tmp_path / "test.bin"
    ten.write_bytes(records(labels, images))
    assert_refused(ten, ten, f"record {BLOCK + 1} has the label 10; expected 0 to 9")
    hundred.write_bytes(records([[3, 99], [20, 4]], images[:2]))
    assert_refused(hundred, hundred, "record 1 has the label 20; expected 0 to 19")
    hundred.write_bytes(records([[3, 100], [19, 4]], images[:2]))
    assert_refused(hundred, hundred, "record 0 has the label 100; expected 0 to 99")


def test_a_file_that_has_a_name_of_the_other_kind(tmp_path):
    ten, hundred = tmp_path / "train.bin", tmp_path / "fine.bin"
    ten.write_bytes(records([[3]], colours(1)))
    assert_refused(ten, ten, "3074 bytes.*CIFAR-10's are named data_batch_1.bin, .*test_batch.bin$")
    hundred.write_bytes(records([[3, 99]], colours(1)))
    assert_refused(hundred, hundred, "3073 bytes.*; CIFAR-100's are named train.bin, test.bin$")


def test_missing_files_are_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_10(folder)
    for name in ("data_batch_3.bin", "test_batch.bin"):
        (folder / name).unlink()
    assert_refused(folder, folder, "CIFAR-10's data_batch_3.bin, test_batch.bin not found")
    assert_refused(tmp_path, folder, "CIFAR-10's test_batch.bin not found", part="test")
    for file in list(folder.iterdir()):
        file.unlink()
    assert_refused(folder, folder, "CIFAR-10's data_batch_1.bin, data_batch_2.bin")
    write_100(tmp_path / "hundred")
    (tmp_path / "hundred" / "train.bin").unlink()
    assert_refused(tmp_path / "hundred", tmp_path / "hundred", "CIFAR-100's train.bin not found")


def test_two_data_sets_in_a_folder(tmp_path):
    write_10(tmp_path / "cifar-10-batches-bin")
    write_100(tmp_path / "cifar-100-binary")
    assert_refused(tmp_path, tmp_path, "more than one data set of CIFAR")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"cat\n" * 10, "1 different names in 10 lines; expected the names of 10 classes"),
        (b"cat\ndog\n", "2 different names in 2 lines"),
        (b"\xff\n" * 10, "utf-8"),
        (b"", "0 different names"),
    ],
)
def test_damaged_class_names(tmp_path, content, message):
    write_10(tmp_path)
    names = tmp_path / "batches.meta.txt"
    names.write_bytes(content)
    assert_refused(tmp_path, names, message)


def test_other_kinds_of_data_say_what_is_expected(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02")  # of the pickled version
    assert_refused(tmp_path, tmp_path, "CIFAR's binary ones such as data_batch_1.bin")
    assert_refused(tmp_path / "data_batch_1", tmp_path / "data_batch_1", "CIFAR's .bin")
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    assert_refused(tmp_path, tmp_path, "label='y' is for CSV and .npz", label="y")


@given(
    size=st.integers(0, 3 * 3073),
    changes=st.lists(st.tuples(st.integers(0, 3 * 3073 - 1), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_file_is_refused_or_read_as_it_is(tmp_path_factory, size, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(records([[1], [2], [3]], colours(3)))
    for where, value in changes:
        content[where] = value
    whole = np.frombuffer(content, np.uint8).reshape(3, 3073)[: size // 3073]
    path.write_bytes(content[:size])
    if size % 3073 or not size or whole[:, 0].max() > 9:
        assert_refused(path, path, "whole records|has the label")
        return
    X, y = data.load(path)
    np.testing.assert_array_equal(y, whole[:, 0])
    pixels = X.reshape(-1, 1024, 3).transpose(0, 2, 1).reshape(-1, 3072)
    np.testing.assert_array_equal(pixels, whole[:, 1:].astype(np.float32) / np.float32(255))


# The command


def test_the_command_takes_the_folder(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "cifar-10-batches-bin"
    write_10(folder, count=20)
    monkeypatch.chdir(tmp_path)
    train = ["train", "--data", str(folder), "--epochs", "1", "--layers", "8", "--out", "m.st"]
    assert cli.main(train) == 0
    output = capsys.readouterr().out
    assert "85 training, 15 validation, 20 test rows; 3072 inputs to 10 classes" in output
    assert cli.main(["evaluate", "m.st", str(folder), "--part", "test"]) == 0
    assert capsys.readouterr().out.startswith("loss ")
    assert cli.main(["predict", "m.st", str(folder / "test_batch.bin")]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == ",".join(["class", *(f"probability_{name}" for name in NAMES_10)])
    assert len(rows) == 20 and all(row.split(",")[0] in NAMES_10 for row in rows)
    assert cli.main([*train, "--regression"]) == 2
    error = capsys.readouterr().err
    assert f"{folder}: labels are names, such as 'airplane'; expected numbers" in error
    (folder / "test_batch.bin").write_bytes(records([[9]], colours(1)))
    only = np.arange(5)[:, None]
    for n in range(1, 6):
        (folder / f"data_batch_{n}.bin").write_bytes(records(only, colours(5)))
    assert cli.main(train) == 2
    error = capsys.readouterr().err
    assert f"{folder}, test part: unknown class 'truck'; the training data had 'airplane'" in error
    (folder / "data_batch_4.bin").unlink()
    assert cli.main(train) == 2
    assert "CIFAR-10's data_batch_4.bin not found" in capsys.readouterr().err
