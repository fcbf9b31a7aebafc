"""Compiled code on disk: a private folder, files that are whole or not there.

The folder is named after the digest of the kernels' sources, so that an edited callee is seen.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import tempfile

_DIGEST_BYTES = 32


@functools.cache
def folder() -> pathlib.Path | None:
    """The private folder of compiled code for this version of the kernels; None if unwritable.

    ``FASTNN_CACHE_DIR`` names its parent; otherwise the user's cache folder does. A folder that
    belongs to another user, or that others may write, is refused: its code would run as ours.
    """
    try:
        path = _parent_folder() / _source_digest()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        status = path.stat()
    except (OSError, RuntimeError):  # the second where there is no home
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return None
    return path


def read(name: str) -> bytes | None:
    """What a file of the cache holds; None where there is no such file, or not all of it."""
    path = folder()
    if path is None:
        return None
    try:
        content = (path / name).read_bytes()
    except OSError:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def write(name: str, content: bytes) -> None:
    """Keep ``content``, if a file can be written."""
    path = folder()
    if path is None:
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=path)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path / name)
    except OSError:
        return


def _parent_folder() -> pathlib.Path:
    if chosen := os.environ.get("FASTNN_CACHE_DIR"):
        return pathlib.Path(chosen)
    caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(caches) / "fastnn"


def _source_digest() -> str:
    """A digest of every source file of the kernels, so that an edited callee is seen."""
    root = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
