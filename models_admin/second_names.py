"""A second name for a file, so that its bytes lie on the disk once. For child programs only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

_NO_LINKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV, errno.EMLINK)
"""How a disk says that it gives the file no second name."""


def give(there: Path, wanted: Path, otherwise: Callable[[Path, Path], object] | None) -> bool:
    """Name the file ``there`` also ``wanted``; False: it could not be done.

    ``otherwise`` is called with both on a disk that gives it no second name; None: nothing is to be done there.
    """
    try:
        os.link(there, wanted, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS or otherwise is None:
            return False
        otherwise(there, wanted)
    return True


def plain_size(path: Path) -> int | None:
    """In bytes, of a regular file that is no link; None for anything else."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
