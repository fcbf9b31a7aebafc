"""Model files: what goes in comes out, bit for bit; whatever else a file holds is refused."""

from __future__ import annotations

import itertools
import json
import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastnn import model_files
from fastnn.model_files import load_tensors, save_tensors

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flag": np.array([True, False, True]),
    "bias": np.array([0.5, -np.inf, np.nan]),
    "nothing": np.zeros((0, 4), np.float32),
    "step": np.array(7),
}
METADATA = {"layers": [["Linear", 2, 3], ["ReLU"]], "dtype": "float32", "lr": 1e-3, "best": None}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = st.sampled_from(list(model_files.DTYPE_NAMES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def intact(folder):
    """The bytes of a good file."""
    path = folder / "intact"
    save_tensors(path, TENSORS, METADATA)
    return path.read_bytes()


def assert_same(loaded, tensors, metadata):
    assert loaded[1] == metadata
    assert list(loaded[0]) == list(tensors)
    for name, tensor in tensors.items():
        assert loaded[0][name].dtype == tensor.dtype
        assert loaded[0][name].shape == tensor.shape
        assert loaded[0][name].tobytes() == tensor.tobytes()


def file_bytes(header, data=b""):
    """A file with any header: text as it is, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def parts_of(content):
    """The header, parsed, and the data of a good file."""
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def assert_refused(folder, content, message):
    path = folder / "refused"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")


@settings(max_examples=40)
@given(
    tensors=st.dictionaries(st.text().filter(lambda name: name != "__metadata__"), ARRAYS),
    metadata=st.dictionaries(st.text(), JSON),
)
def test_what_goes_in_comes_out(folder, tensors, metadata):
    save_tensors(folder / "round", tensors, metadata)
    assert_same(load_tensors(folder / "round"), tensors, metadata)


def test_layout(intact):
    length = int.from_bytes(intact[:8], "little")
    header, data = parts_of(intact)
    assert length % 8 == 0
    assert intact[8:9] == b"{"
    assert list(header["__metadata__"]) == ["fastnn"]
    begin, end = header["weight"].pop("data_offsets")
    assert header["weight"] == {"dtype": "F32", "shape": [2, 3]}
    assert data[begin:end] == TENSORS["weight"].tobytes()
    for name in TENSORS:
        assert (8 + length + header[name].get("data_offsets", [begin])[0]) % (
            TENSORS[name].itemsize
        ) == 0


def test_strided_and_big_endian_arrays_are_stored_alike(folder):
    values = np.arange(12.0).reshape(3, 4)
    save_tensors(
        folder / "views", {"t": values.T, "s": values[::2, ::3], "b": values.astype(">f8")}, {}
    )
    tensors, _ = load_tensors(folder / "views")
    np.testing.assert_array_equal(tensors["t"], values.T)
    np.testing.assert_array_equal(tensors["s"], values[::2, ::3])
    np.testing.assert_array_equal(tensors["b"], values)


def test_loaded_arrays_are_writable_and_apart(folder):
    save_tensors(folder / "two", {"a": np.zeros(3), "b": np.zeros(3)}, {})
    tensors, _ = load_tensors(folder / "two")
    tensors["a"] += 1
    assert not tensors["b"].any()
    assert tensors["a"].flags.owndata


def test_every_truncation_is_refused(folder, intact):
    for size in range(len(intact)):
        assert_refused(folder, intact[:size], "not a model file")


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_seen(folder, intact, bits):
    """Either the result is the same (a flip inside an escape), or the file is refused."""
    path = folder / "flipped"
    for byte, offset in itertools.product(range(len(intact)), range(bits)):
        bit = (3 * byte + offset) % 8
        damaged = bytearray(intact)
        damaged[byte] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            loaded = load_tensors(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert_same(loaded, TENSORS, METADATA)


@given(data=st.data())
def test_spliced_files_are_refused(folder, intact, data):
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(intact))] * 2)))
    damaged = intact[:begin] + data.draw(st.binary(max_size=40)) + intact[end:]
    if damaged != intact:
        assert_refused(folder, damaged, "not a model file|newer than")


@given(content=st.binary(max_size=200), header=JSON)
def test_any_bytes_and_any_header_are_refused(folder, content, header):
    assert_refused(folder, content, "not a model file")
    assert_refused(folder, file_bytes(header, content), "not a model file")


def with_entry(content, name, **fields):
    header, data = parts_of(content)
    header[name].update(fields)
    return file_bytes(header, data)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("weight", {"dtype": "BF16"}, "unknown dtype 'BF16'"),
        ("weight", {"dtype": ["F32"]}, "unknown dtype"),
        ("weight", {"dtype": "I32"}, "do not match their digest"),
        ("weight", {"shape": [3, 2]}, "do not match their digest"),
        ("weight", {"shape": [2, 4]}, "does not fit its bytes"),
        ("weight", {"shape": [-2, -3]}, "expected a list of sizes"),
        ("weight", {"shape": [2.0, 3]}, "expected a list of sizes"),
        ("weight", {"shape": [True, 6]}, "expected a list of sizes"),
        ("weight", {"shape": 6}, "expected a list of sizes"),
        ("weight", {"shape": [2**62, 2**62]}, "does not fit its bytes"),
        ("weight", {"shape": [1] * 70 + [6]}, "not a model file"),
        ("nothing", {"shape": [0, 2**62, 2**62]}, "not a model file"),
        ("weight", {"data_offsets": [0, 24]}, "begins at byte"),
        ("weight", {"data_offsets": [10**9, 10**9 + 24]}, "begins at byte"),
        ("weight", {"data_offsets": [24, 0]}, "does not fit its bytes"),
        ("weight", {"data_offsets": [24]}, "does not fit its bytes"),
        ("weight", {"more": 1}, "must have the fields"),
    ],
)
def test_wrong_entries_are_refused(folder, intact, name, fields, message):
    assert_refused(folder, with_entry(intact, name, **fields), message)


def test_other_bytes_than_0_and_1_are_no_booleans(folder, intact):
    header, data = parts_of(intact)
    data = bytearray(data)
    data[header["flag"]["data_offsets"][0]] = 2
    assert_refused(folder, file_bytes(header, bytes(data)), "holds other bytes than 0 and 1")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"__metadata__":{},"__metadata__":{}}', "a key stands twice"),
        (b'{"a":{"shape":[],"shape":[]}}', "a key stands twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "not a model file"),
        (b'{"a":' * 100_000, "not a model file"),
        (b'{"a":' + b"9" * 5000 + b"}", "not a model file"),
        (b'{"\xff":1}', "not a model file"),
        (b"[]", "expected a JSON object"),
        (b"{}", "no metadata of fastnn's"),
        (b'{"__metadata__":[]}', "expected a JSON object"),
        (b'{"__metadata__":{"format":"pt"}}', "no metadata of fastnn's"),
        (b'{"__metadata__":{"fastnn":{}}}', "no metadata of fastnn's"),
        (b'{"__metadata__":{"fastnn":"{}"}}', "format_version must be a positive integer"),
        (
            b'{"__metadata__":{"fastnn":"{\\"format_version\\":1}"}}',
            "metadata must have the fields",
        ),
    ],
)
def test_wrong_headers_are_refused(folder, header, message):
    assert_refused(folder, file_bytes(header), message)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(folder):
    assert_refused(folder, (2**60).to_bytes(8, "little") + b"{}", "does not fit a file of 10")


def test_a_newer_format_names_both_versions(folder, intact):
    header, data = parts_of(intact)
    envelope = {"format_version": 2, "anything": ["new"]}
    header["__metadata__"]["fastnn"] = json.dumps(envelope)
    assert_refused(folder, file_bytes(header, data), "format version 2, newer than 1")


def test_a_missing_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match="missing"):
        load_tensors(folder / "missing")


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        ({"a": np.ones(2, complex)}, {}, TypeError, "tensor 'a' must have one of the dtypes"),
        ({"a": np.array([None])}, {}, TypeError, "got object"),
        ({"a": np.array(["text"])}, {}, TypeError, "got <U4"),
        ({"__metadata__": np.ones(2)}, {}, ValueError, "reserves that name"),
        ({}, {"loss": float("nan")}, ValueError, "metadata must be something that JSON"),
        ({}, {"array": np.ones(2)}, TypeError, "metadata must be something that JSON"),
    ],
)
def test_a_failed_save_leaves_the_old_file(tmp_path, tensors, metadata, error, message):
    path = tmp_path / "model"
    save_tensors(path, TENSORS, METADATA)
    with pytest.raises(error, match=message):
        save_tensors(path, tensors, metadata)
    assert_same(load_tensors(path), TENSORS, METADATA)
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    save_tensors(path, TENSORS, METADATA)

    def no_space(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space left"):
        save_tensors(path, {}, {})
    assert_same(load_tensors(path), TENSORS, METADATA)
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: no such folder"):
        save_tensors(tmp_path / "missing" / "model", {}, {})


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are POSIX's")
def test_permissions_follow_the_umask_and_links_stay(tmp_path):
    path, link = tmp_path / "model", tmp_path / "latest"
    link.symlink_to(path)
    before = os.umask(0o027)
    try:
        save_tensors(link, TENSORS, METADATA)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert_same(load_tensors(path), TENSORS, METADATA)


def test_the_safetensors_library_reads_our_files(folder):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = folder / "ours.safetensors"
    save_tensors(path, TENSORS, METADATA)
    loaded = safetensors.load_file(path)
    assert_same(({name: loaded[name] for name in TENSORS}, METADATA), TENSORS, METADATA)


def test_files_of_the_safetensors_library_without_our_metadata_are_refused(folder):
    safetensors = pytest.importorskip("safetensors.numpy")
    assert_refused(folder, safetensors.save({"a": np.ones(3)}), "no metadata of fastnn's")


def test_the_safetensors_library_can_rewrite_our_files(folder, intact):
    safetensors = pytest.importorskip("safetensors.numpy")
    header, _ = parts_of(intact)
    path = folder / "rewritten"
    path.write_bytes(safetensors.save(safetensors.load(intact), header["__metadata__"]))
    tensors, metadata = load_tensors(path)
    assert_same(({name: tensors[name] for name in TENSORS}, metadata), TENSORS, METADATA)
