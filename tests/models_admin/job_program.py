"""A job program for tests: ``params["do"]`` says how it behaves."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from models_admin.job_child import JobError, Reporter, run_job
from models_admin.tied import tied_command


def work(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    match params["do"]:
        case "count":
            for step in range(1001):
                report("counting", step, 1000, "steps")
            return {"sum": params["a"] + params["b"]}
        case "refuse":
            raise JobError("It cannot be done today.")
        case "disk full":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "no access":
            raise PermissionError(errno.EACCES, "Permission denied", "/there")
        case "defect":
            raise ValueError("a defect of the program")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "babble":
            report._socket.sendall(b"\x00\x00\x00\x02hi")
        case "stand":
            for step in (1, 2):
                report("counting", step, 1000, "steps")
        case "wait":
            grandchild = subprocess.Popen(tied_command("tests.models_admin.job_program", "--pause"))
            report(f"{os.getpid()} {grandchild.pid}")
    threading.Event().wait()
    raise AssertionError


if __name__ == "__main__":
    if sys.argv[1:] == ["--pause"]:
        signal.pause()
    run_job(work)
