"""Files that appear under their name only when whole, and files that only their owner reads."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from endoclip_jax.errors import UserError

PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600
UNFINISHED = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_is_told(folder: Path) -> Iterator[None]:
    """Turns a full disk, met while writing to `folder`, into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"the disk is full and {folder} could not be completed: free some space and run the "
            "same command again (what is finished is kept)"
        ) from error


@contextmanager
def whole_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Opens a file for writing that replaces `path` when the block ends without an error.

    Its bytes are on the disk before its name is. An error leaves nothing behind, a kill a file
    with a name of its own that ends in UNFINISHED.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Writes a small file so that it is there whole or not at all."""
    with whole_file(path, mode) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def private_folder(path: Path) -> Path:
    """Makes a folder that only its owner may enter."""
    path.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    path.chmod(PRIVATE_FOLDER_MODE)
    return path
