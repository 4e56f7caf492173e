"""Folders that appear whole or not at all: made under a neighbouring name, moved into place at the end."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lem.errors import UserError

_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}


def refuse_occupied(output: Path, option: str = "--output") -> None:
    """Accept a path that does not exist or is an empty folder.   Raises: UserError otherwise; nothing is touched."""
    if output.is_symlink() or (output.exists() and not output.is_dir()) or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty; choose a new {option}, nothing was touched.")


@contextmanager
def staged_folder(output: Path, option: str = "--output") -> Iterator[Path]:
    """Yield an empty neighbour of `output` that takes its place when the block ends well and is removed otherwise.

    Folders above `output` are made as needed, and unmade again when the block fails.
    Raises: UserError if `output` is occupied, or if the block fails to write (no room, no permission).
    """
    refuse_occupied(output, option)
    made = [parent for parent in output.absolute().parents if not parent.exists()]
    work: Path | None = None
    try:
        with _writing(output, option, _REFUSALS):
            output.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".part"))
        with _writing(output, option, set()):
            yield work
        work.chmod(0o755)  # mkdtemp makes it private
        work.replace(output)
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # not empty: it holds the output
                parent.rmdir()


@contextmanager
def _writing(output: Path, option: str, refusals: set[int]) -> Iterator[None]:
    """Turn a full disk, or one of the named refusals of the file system, into a sentence."""
    try:
        yield
    except OSError as error:
        # numpy reports a short write without an errno.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None} | refusals:
            raise
        reason = error.strerror or "the disk is full"
        raise UserError(
            f"{output}: could not write ({reason}); nothing was kept; make room or choose another {option}."
        ) from None
