"""Runs the cases of one program and prints a line of JSON: ``python -m tests.clients.programs with_langchain``.

The line is ``{"tried": [host…], "cases": {name: {"gave": …} or {"raised": traceback}}}``. Nothing leaves this machine:
a client that looks for somebody else gets an error, and ``tried`` has whom it looked for.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import sys
import traceback
from typing import Any

tried: list[str] = []


def is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if not is_here(host):
        tried.append(host)
        raise OSError(f"not on this machine: {host}")


def main(name: str) -> None:
    sys.addaudithook(guard)  # before the client is imported
    gave: dict[str, Any] = {}
    for case in importlib.import_module(f"tests.clients.programs.{name}").CASES:
        try:
            gave[case.__name__] = {"gave": case()}
        except Exception:
            gave[case.__name__] = {"raised": traceback.format_exc()}
    sys.stdout.write("\n" + json.dumps({"tried": tried, "cases": gave}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
