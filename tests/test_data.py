"""Data: the digits, the readers with every damage that files suffer, and the split."""

from __future__ import annotations

import gzip
import itertools
import pickle
import zipfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnn import data

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 11
LABELS = np.array([7, 3], np.uint8)
IDX_CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx_bytes(values, dtype="u1"):
    sizes = np.array(values.shape, ">u4").tobytes()
    return bytes([0, 0, IDX_CODES[dtype], values.ndim]) + sizes + values.astype(dtype).tobytes()


def write_idx(folder, stem, pixels=PIXELS, labels=LABELS, packed=False):
    """A pair under MNIST's names; the path of its images."""
    pack, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    if labels is not None:
        path = folder / f"{stem}-labels-idx1-ubyte{suffix}"
        path.write_bytes(pack(idx_bytes(labels)))
    path = folder / f"{stem}-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(pixels)))
    return path


def write_csv(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def assert_refused(path, message=None, read=data.load, **arguments):
    with pytest.raises(ValueError, match=message) as caught:
        read(path, **arguments)
    assert str(caught.value).startswith(f"{path}: ")


# The digits ---------------------------------------------------------------------------------


def test_digits_are_the_uci_set():
    X, y = data.digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.int64)
    assert (X.min(), X.max()) == (0, 1)
    # The counts and the sum of the pixels that the set is published with.
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert int((X * 16).sum(dtype=np.float64)) == 561718
    assert (X[0, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_a_dataset_is_a_pair_that_pickles():
    dataset = data.Dataset(PIXELS, LABELS, ("a", "b"))
    again = pickle.loads(pickle.dumps(dataset))
    X, y = again
    assert again.classes == ("a", "b")
    np.testing.assert_array_equal(X, PIXELS)
    np.testing.assert_array_equal(y, LABELS)


# IDX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("of_folder", [False, True])
def test_idx_images_become_rows_from_0_to_1(tmp_path, packed, of_folder):
    images = write_idx(tmp_path, "t10k", packed=packed)
    X, y = data.load(tmp_path if of_folder else images)
    np.testing.assert_array_equal(X, PIXELS.reshape(2, 12).astype(np.float32) / np.float32(255))
    assert (X.dtype, y.dtype, y.tolist()) == (np.float32, np.int64, [7, 3])


def test_a_folder_of_two_parts(tmp_path):
    write_idx(tmp_path, "t10k", PIXELS[:1], LABELS[:1])
    write_idx(tmp_path, "train", PIXELS[1:], LABELS[1:], packed=True)
    assert data.load(tmp_path).y.tolist() == [3, 7]
    assert data.load(tmp_path, part="train").y.tolist() == [3]
    assert data.load(tmp_path, part="test").y.tolist() == [7]


def test_a_folder_with_a_file_plain_and_packed_reads_one(tmp_path):
    write_idx(tmp_path, "train", packed=True)
    write_idx(tmp_path, "train")
    assert data.load(tmp_path).y.tolist() == [7, 3]


def test_dotted_names_are_known_too(tmp_path):
    write_idx(tmp_path, "train")
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert data.load(tmp_path).y.tolist() == [7, 3]


@pytest.mark.parametrize("dtype", IDX_CODES)
def test_idx_of_every_type(tmp_path, dtype):
    path = tmp_path / "images-idx3-ubyte"
    values = np.arange(8).reshape(2, 2, 2)
    path.write_bytes(idx_bytes(values, dtype))
    X = data.load_inputs(path)
    scale = 255 if dtype == "u1" else 1
    np.testing.assert_array_equal(X, values.reshape(2, 4).astype(X.dtype) / X.dtype.type(scale))
    assert X.dtype == (np.float64 if dtype in (">i4", ">f8") else np.float32)


def test_images_without_labels_are_inputs_only(tmp_path):
    images = write_idx(tmp_path, "train", labels=None)
    assert data.load_inputs(images).shape == (2, 12)
    assert_refused(images, "no labels found beside the images")


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncated_idx_is_refused(tmp_path, packed):
    images = write_idx(tmp_path, "train", packed=packed)
    content = images.read_bytes()
    for size in range(len(content)):
        images.write_bytes(content[:size])
        assert_refused(images)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(PIXELS) + b"x", "sizes .* do not fit|data go on"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "sizes .* do not fit a file of"),
        (b"\0\0\x08\x01" + b"\xff" * 4, "sizes .* do not fit a file of"),
        (b"\0\0\x07" + idx_bytes(PIXELS)[3:], "not an IDX file"),
        (b"\1\0" + idx_bytes(PIXELS)[2:], "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"", "ends early"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, packed, content, message):
    images = write_idx(tmp_path, "train")
    images.write_bytes(gzip.compress(content) if packed else content)
    assert_refused(images, message)


def test_every_flipped_bit_of_a_packed_idx_is_seen(tmp_path):
    images = write_idx(tmp_path, "train", packed=True)
    intact, content = data.load_inputs(images), images.read_bytes()
    for byte, bit in itertools.product(range(len(content)), range(8)):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << bit
        images.write_bytes(damaged)
        try:
            X = data.load_inputs(images)
        except ValueError as error:
            assert str(error).startswith(f"{images}: ")
        else:  # gzip's own header has a time stamp and such
            np.testing.assert_array_equal(X, intact)


def test_images_and_labels_of_different_sets_are_refused(tmp_path):
    images = write_idx(tmp_path, "train", labels=np.zeros(3, np.uint8))
    assert_refused(images, r"inputs and labels must have as many rows")


def test_folders_that_leave_it_open_are_refused(tmp_path):
    assert_refused(tmp_path, "no train or test images found")
    write_idx(tmp_path, "letters-train")
    assert_refused(tmp_path, "no test images found", part="test")
    write_idx(tmp_path, "digits-train")
    assert_refused(tmp_path, "more than one train set, digits-train.* and letters-train")


def test_parts_of_different_widths_are_refused(tmp_path):
    write_idx(tmp_path, "train")
    write_idx(tmp_path, "t10k", PIXELS.reshape(2, 4, 3)[:, :2])
    assert_refused(tmp_path, "rows of the parts must be alike")


# .npz ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_one_part(tmp_path, save):
    path = tmp_path / "set.npz"
    inputs = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    save(path, X=inputs, y=np.array([1.5, 2.5], np.float32), more=np.ones(1))
    X, y = data.load(path)
    np.testing.assert_array_equal(X, inputs)
    assert (X.dtype, y.dtype, y.tolist()) == (np.float64, np.float32, [1.5, 2.5])


def test_npz_of_two_parts(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=PIXELS[:1], y_train=LABELS[:1], x_test=PIXELS[1:], y_test=LABELS[1:])
    assert data.load(path).y.tolist() == [7, 3]
    assert data.load(path, part="test").y.tolist() == [3]
    assert data.load(path).X.shape == (2, 12)
    assert data.load(path).X.max() == np.float32(253) / np.float32(255)


def test_npz_with_named_text_labels(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.ones((3, 2)), animal=np.array(["dog", "cat", "dog"]))
    dataset = data.load(path, label="animal")
    assert dataset.y.tolist() == [1, 0, 1]
    assert dataset.classes == ("cat", "dog")


def test_npz_of_one_part_has_no_other(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.ones((3, 2)), y=np.ones(3))
    assert_refused(path, r"no array 'x_test' found, only \['x', 'y'\]", part="test")


def test_npz_without_labels_is_inputs_only(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.ones((3, 2)), labels=np.ones(3))
    assert data.load_inputs(path).shape == (3, 2)
    assert_refused(path, "unknown array 'label': did you mean 'labels'", label="label")
    assert_refused(path, "unknown array 'y'")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([[None]]), "y": np.ones(1)}, "x.npy.: must hold numbers, got dtype object"),
        (
            {"x": np.ones((1, 1)), "y": np.ones(1, complex)},
            "must hold numbers or text, got dtype c",
        ),
        ({"x": np.array([["a"]]), "y": np.ones(1)}, "x.npy.: must hold numbers, got dtype <U1"),
        ({"x": np.array(1.0), "y": np.ones(1)}, "must have rows"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "at least one row"),
        ({"x": np.ones((2, 2)), "y": np.ones(1)}, "as many rows"),
        ({"x": np.ones((1, 1)), "X": np.ones((1, 1)), "y": np.ones(1)}, "have the same name"),
        ({"z": np.ones((2, 2)), "y": np.ones(1)}, "no array 'X' or 'x_train' or 'x_test' found"),
    ],
)
def test_npz_of_other_things_is_refused(tmp_path, arrays, message):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    assert_refused(path, message)


@pytest.mark.parametrize(
    "shape", ["(1000000000,)", "(4000000000, 2)", "(-2, -3)", "(2, 4)", "(True,)"]
)
def test_npz_with_sizes_that_lie_is_refused(tmp_path, shape):
    path = tmp_path / "set.npz"
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 48
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy)
        archive.writestr("y.npy", npy)
    assert_refused(path)


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_a_damaged_npz_is_refused_or_read_whole(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, X=PIXELS, y=LABELS)
    intact, content = data.load(path), bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * len(content))] = value
    path.write_bytes(content)
    try:
        X, y = data.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        np.testing.assert_array_equal(X, intact.X)
        np.testing.assert_array_equal(y, intact.y)


# CSV ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "y", "dtype", "classes"),
    [
        (["3", "1", "3"], [3, 1, 3], np.int64, None),
        (["0.5", "1", "2e1"], [0.5, 1, 20], np.float64, None),
        (["rose", " lily", '"rose"'], [1, 0, 1], np.int64, ("lily", "rose")),
        (["1", "2", "many"], [0, 1, 2], np.int64, ("1", "2", "many")),
    ],
)
def test_csv_labels(tmp_path, labels, y, dtype, classes):
    lines = [f"{number},{label},-1.5" for number, label in enumerate(labels)]
    path = write_csv(tmp_path, "\n".join(["a,Target,b", *lines, ""]))
    dataset = data.load(path)
    np.testing.assert_array_equal(dataset.X, [[0, -1.5], [1, -1.5], [2, -1.5]])
    assert (dataset.y.tolist(), dataset.y.dtype, dataset.classes) == (y, dtype, classes)
    assert dataset.X.flags.writeable


@pytest.mark.parametrize(
    ("text", "label", "y"),
    [
        ("label,a,y\n1,2,3\n", None, 3),
        ("label,a,y\n1,2,3\n", "label", 1),
        ("label,a,y\n1,2,3\n", "a", 2),
        ('\ufefflabel,"a, b"\r\n1,2\r\n\r\n', None, 1),
    ],
)
def test_csv_label_column(tmp_path, text, label, y):
    assert data.load(write_csv(tmp_path, text), label=label).y.tolist() == [y]


def test_csv_inputs_with_and_without_a_label(tmp_path):
    for text in ("a,b,label\n1,2,0\n", "a,b\n1,2\n"):
        np.testing.assert_array_equal(data.load_inputs(write_csv(tmp_path, text)), [[1, 2]])
    path = write_csv(tmp_path, "a,species\n1,rose\n")
    np.testing.assert_array_equal(data.load_inputs(path, label="species"), [[1]])
    path = write_csv(tmp_path, "a,b\n1,2\n")
    np.testing.assert_array_equal(data.load_inputs(path, label="species"), [[1, 2]])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, "empty; expected a line that names the columns"),
        ("1,2\n3,4\n", {}, "the first line must name the columns"),
        ("a,b\n1,2\n", {}, "no column is named 'label'.* for example 'b'"),
        (
            "a,species\n1,2\n",
            {"label": "specie"},
            "unknown column 'specie': did you mean 'species'",
        ),
        ("y,y,a\n1,2,3\n", {"label": "y"}, "more than one column is named 'y'"),
        ("a,y\n1,2\n3\n", {}, "line 3: 1 values, expected 2"),
        ("a,y\n1,2,3\n", {}, "line 2: 3 values, expected 2"),
        ("a,b,y\n1,2,0\n1,red,0\n", {}, "line 3, column 'b': 'red' is not a number"),
        ("a,y\n,1\n", {}, "line 2, column 'a': '' is not a number"),
        ("a,y\n1,\n", {}, "line 2: the label is missing"),
        ("a,y\n", {}, "at least one row"),
        ("y\n1\n", {}, "no column beside the label 'y'"),
        ('a,y\n"1,2\n', {}, "unexpected end of data"),
        ("a,y\n1,2\n", {"part": "test"}, "part='test' is for data in two parts"),
    ],
)
def test_damaged_csv_is_refused(tmp_path, text, arguments, message):
    assert_refused(write_csv(tmp_path, text), message, **arguments)


def test_csv_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    assert_refused(path, "utf-8")


# What is there at all -----------------------------------------------------------------------


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        data.load(tmp_path / "nowhere")
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert_refused(path, "unknown kind of data")
    assert_refused(tmp_path, "label='y' is for CSV and .npz", label="y")
    with pytest.raises(ValueError, match="unknown part 'tset': did you mean 'test'"):
        data.load(path, part="tset")


# The split ----------------------------------------------------------------------------------


@st.composite
def labelled(draw):
    """Class numbers, and fractions that sum to 1."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    weights = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    y = np.repeat(np.arange(len(sizes)) * 3 - 5, sizes)
    fractions = [weight / sum(weights) for weight in weights]
    return draw(st.permutations(y.tolist()).map(np.array)), fractions


def split_rows(y, fractions, **arguments):
    """The parts, or None where the rows do not suffice for all of them."""
    try:
        return data.split(np.arange(len(y))[:, None], y, fractions, **arguments)
    except ValueError as error:
        assert "must leave no part empty" in str(error)
        return None


@given(labelled(), st.integers(0, 2**64 - 1), st.booleans())
def test_split_parts_every_row_once(case, seed, stratify):
    y, fractions = case
    parts = split_rows(y, fractions, seed=seed, stratify=stratify)
    if parts is None:
        assert stratify or len(y) < len(fractions)
        return
    rows = np.concatenate([X[:, 0] for X, _ in parts])
    assert sorted(rows.tolist()) == list(range(len(y)))
    for X, part_y in parts:
        np.testing.assert_array_equal(part_y, y[X[:, 0]])
    again = split_rows(y, fractions, seed=seed, stratify=stratify)
    for (X, _), (X_again, _) in zip(parts, again, strict=True):
        np.testing.assert_array_equal(X, X_again)


@given(labelled())
def test_split_gives_every_part_its_share_of_every_class(case):
    y, fractions = case
    parts = split_rows(y, fractions)
    if parts is None:
        return
    for label, size in Counter(y.tolist()).items():
        counts = [int(np.sum(part_y == label)) for _, part_y in parts]
        if size >= len(fractions):
            assert min(counts) >= 1
        if min(np.floor(size * np.array(fractions))) >= 1:
            for count, fraction in zip(counts, fractions, strict=True):
                assert abs(count - size * fraction) <= 1 + 1e-9


@given(st.integers(2, 60), st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_totals_stay_in_proportion_with_many_small_classes(classes, weights):
    y = np.repeat(np.arange(classes), 7)
    parts = split_rows(y, [weight / sum(weights) for weight in weights])
    if 7 * min(weights) >= sum(weights):
        # Nobody had to be given a row out of turn.
        for (_, part_y), weight in zip(parts, weights, strict=True):
            assert abs(len(part_y) - len(y) * weight / sum(weights)) <= len(weights)


def test_split_shuffles_and_seeds_differ():
    y = np.arange(1000) % 10
    (one, _), (other, _) = (
        data.split(np.arange(1000)[:, None], y, (0.5, 0.5), seed=seed)[0] for seed in (0, 1)
    )
    assert np.mean(np.diff(one[:, 0]) > 0) < 0.6
    assert set(one[:, 0].tolist()) != set(other[:, 0].tolist())


def test_split_of_float_targets_is_not_stratified():
    X, y = np.arange(100)[:, None], np.linspace(0, 1, 100)
    assert [len(part_y) for _, part_y in data.split(X, y)] == [70, 15, 15]


def test_split_stratifies_text_when_asked():
    y = np.array(["a"] * 20 + ["b"] * 10)
    for _, part_y in data.split(np.ones((30, 1)), y, (0.5, 0.5), stratify=True):
        assert Counter(part_y.tolist()) == {"a": 10, "b": 5}


def test_split_reads_memory_maps_and_tables(tmp_path):
    class Table:
        """As much of a pandas table as NumPy looks at."""

        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return self.values

    X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    np.save(tmp_path / "X.npy", X)
    expected = data.split(X, y)
    for inputs in (np.load(tmp_path / "X.npy", mmap_mode="r"), Table(X), X.tolist()):
        for (part_X, _), (expected_X, _) in zip(
            data.split(inputs, Table(y)), expected, strict=True
        ):
            np.testing.assert_array_equal(part_X, expected_X)


def test_split_keeps_images_whole():
    parts = data.split(np.zeros((10, 4, 4)), np.zeros(10), (0.5, 0.5))
    assert [X.shape for X, _ in parts] == [(5, 4, 4), (5, 4, 4)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fractions": (0.5, 0.4)}, ValueError, r"fractions must sum to 1, got \(0.5, 0.4\)"),
        ({"fractions": (1.5, -0.5)}, ValueError, "fractions must be above 0"),
        ({"fractions": (float("nan"), 1)}, ValueError, "fractions must be"),
        ({"fractions": ()}, ValueError, "fractions must sum to 1"),
        ({"fractions": (0.01,) * 100}, ValueError, "must leave no part empty"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"y": np.zeros(9)}, ValueError, "as many rows"),
        ({"y": np.zeros((10, 2)), "stratify": True}, ValueError, "stratify needs labels of shape"),
    ],
)
def test_bad_splits_are_refused(arguments, error, message):
    X, y = np.zeros((10, 2)), arguments.pop("y", np.zeros(10, int))
    with pytest.raises(error, match=message):
        data.split(X, y, **arguments)
