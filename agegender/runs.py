"""One run: papermill on one notebook, so that nothing half-done is ever taken for a result.

Called by the Snakefile for each run: ``python -m agegender.runs NOTEBOOK FOLDER PARAMETERS`` with the
parameters as base64 of JSON (no shell takes that apart).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import filelock

from agegender.places import home, written_whole

TAIL = 40  # lines of a failed run's log that go to the screen


def execute(notebook: Path, folder: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook into ``folder/notebook.ipynb``; raises what papermill raises.

    A notebook broken off is kept beside it as ``.failed.ipynb``, for looking at only.
    """
    import papermill

    with written_whole(folder / "notebook.ipynb") as part:
        try:
            papermill.execute_notebook(
                notebook,
                part,
                parameters,
                kernel_name="python3",
                cwd=home(),
                progress_bar=False,
                log_output=True,
            )
        except BaseException:
            if part.exists():
                os.replace(part, folder / ".failed.ipynb")
            raise
        # papermill notes where the file lay; that is nobody's business
        done = part.read_text(encoding="utf-8").replace(json.dumps(str(part))[1:-1], "notebook.ipynb")
        part.write_text(done, encoding="utf-8")
    (folder / ".failed.ipynb").unlink(missing_ok=True)


def end_with_parent() -> None:
    """End this process and its kernel as soon as the process that started it is gone.

    After a kill -9 of Snakemake its jobs would go on and write under a later run's feet.
    """
    parent = os.getppid()

    def watch() -> None:
        import psutil

        while os.getppid() == parent:
            time.sleep(0.3)
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def main(notebook: str, folder: str, encoded: str) -> int:
    """Run one notebook as the Snakefile asks; the exit code."""
    end_with_parent()
    into, began = home() / folder, time.perf_counter()
    into.mkdir(parents=True, exist_ok=True)
    try:  # the system lets go of this lock when its holder dies, however it dies
        lock = filelock.FileLock(into / ".lock", timeout=20).acquire()
    except filelock.Timeout:
        print(f"{folder} is still being written by another process: end that one first", file=sys.stderr)
        return 1
    values = json.loads(base64.b64decode(encoded))
    with lock, open(into / "log.txt", "w", encoding="utf-8") as log:
        screen = os.fdopen(os.dup(1), "w")
        print(f"{into.name}: running; its log: {folder}/log.txt", file=screen, flush=True)
        for stream in (1, 2):  # so that what the kernel itself says lands in the log too
            os.dup2(log.fileno(), stream)
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        logging.info("%s into %s with %s", notebook, folder, json.dumps(values))
        try:
            execute(home() / notebook, into, values)
        except Exception as error:  # whatever it is, the log has it, and the log's end goes to the screen
            logging.error("%s", error)
            lines = (into / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            print(
                f"\n{into.name} failed. The end of {folder}/log.txt:\n  "
                + "\n  ".join(lines)
                + f"\nThe notebook as far as it came: {folder}/.failed.ipynb\n",
                file=screen,
                flush=True,
            )
            return 1
        print(f"{into.name}: done in {time.perf_counter() - began:.0f} s", file=screen, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
