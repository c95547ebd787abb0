"""Where things lie, and how files are written so that a kill leaves none half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator


def home() -> Path:
    """The folder that holds ``notebooks/``, ``runs/`` and ``book/``.

    ``$AGEGENDER_HOME`` if set; else the checkout this package is imported from; else, for an
    installed package, the current folder.
    """
    if named := os.environ.get("AGEGENDER_HOME"):
        return Path(named).resolve()
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def cache() -> Path:
    """The folder of what can be made again (drawn sample, pixels).

    ``$AGEGENDER_CACHE``, or ``.cache`` at home.
    """
    named = os.environ.get("AGEGENDER_CACHE")
    folder = Path(named).resolve() if named else home() / ".cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move it there when the block ends well.

    The block may write a file or make a folder at the yielded path. After an exception nothing is
    left; after a kill at most a name beginning with ``.part-``, which nothing reads.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=path.parent))
    part = work / path.name
    try:
        yield part
        if part.is_dir() and path.is_dir():  # a folder can't replace a folder in one step
            path.rename(work / "old")
        os.replace(part, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sweep(*folders: Path, older: float = 86_400) -> None:
    """Remove what kills have left of unfinished writing below `folders`, if it is `older` than so many seconds."""
    for folder in folders:
        for part in folder.rglob(".part-*"):
            if part.is_dir() and time.time() - part.stat().st_mtime > older:
                shutil.rmtree(part, ignore_errors=True)
