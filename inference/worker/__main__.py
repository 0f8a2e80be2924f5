"""``python -m inference.worker --fd N``: a model worker that speaks ``inference.ipc`` over descriptor N.

Exit codes: 0 drained or terminated, 2 wrong usage, 3 loading failed (``LoadFailed`` was sent), 4 a defect ended the
stepping loop, 5 the web process is gone, 6 the web process sent bytes that are not this protocol.
"""

from __future__ import annotations

import argparse
import socket
import sys

from inference.lifeline import die_with_parent
from inference.worker.exits import EXIT_USAGE
from inference.worker.process import WorkerProcess


def main(argv: list[str]) -> int:
    """Serve until the process ends; returns (an exit code) only when the descriptor is of no use."""
    parser = argparse.ArgumentParser(prog="python -m inference.worker", description="One model worker of Opta-LMX.")
    parser.add_argument("--fd", type=int, required=True, help="inherited descriptor of a connected Unix socket")
    arguments = parser.parse_args(argv)
    try:
        sock = socket.socket(fileno=arguments.fd)
    except OSError as error:
        sys.stderr.write(f"descriptor {arguments.fd} is not a socket: {error.strerror}\n")
        return EXIT_USAGE
    die_with_parent()
    WorkerProcess(sock).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
