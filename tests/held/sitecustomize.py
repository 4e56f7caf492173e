"""Python reads this at its start where the folder is on PYTHONPATH: a process then stops at a known place in its work.

After its `HOLD_LINES`-th write to a file that matches `HOLD_AT`, the process leaves a mark named by its process id in
the folder `HOLD_MARKS` and waits until somebody takes the mark away. A test can so kill it there, however fast or slow
the machine is.
"""

import fnmatch
import os
import time

_open, _write = os.open, os.write
_watched: set[int] = set()
_n_written = 0


def _opening(path, *args, **kwargs):
    fd = _open(path, *args, **kwargs)
    matches = fnmatch.fnmatchcase(os.path.abspath(os.fsdecode(path)), os.environ["HOLD_AT"])
    (_watched.add if matches else _watched.discard)(fd)
    return fd


def _writing(fd, data):
    global _n_written
    written = _write(fd, data)
    if fd in _watched:
        _n_written += 1
        if _n_written == int(os.environ["HOLD_LINES"]):
            _hold(os.path.join(os.environ["HOLD_MARKS"], str(os.getpid())))
    return written


def _hold(mark):
    with open(mark, "x"):
        pass
    while os.path.exists(mark):
        time.sleep(0.005)


if "HOLD_AT" in os.environ:
    os.open, os.write = _opening, _writing
