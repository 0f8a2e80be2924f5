"""Binds the server's socket, and when that fails says who sits on the port."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
from typing import Any

import psutil

from lmx_site.home import StartRefused

SERVER_NAME = "opta-lmx"  # in the Server header of every answer
_PROBE_S = 1.0
_BACKLOG = 512


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises ``StartRefused`` with one line."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartRefused(f"server.host {host} is not known to this machine ({error.strerror})") from error
    # A name such as localhost has both kinds of address; clients try the older one in any case.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    # macOS lets us bind 127.0.0.1 beside a program that has the port on all addresses, and its clients would be ours.
    if port and _accepts(address):
        raise StartRefused(_taken(host, port))
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StartRefused(_why(host, port, error)) from error
    return listener


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return _taken(host, port)
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs administrator rights; use one above 1023: make serve PORT=1234"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"server.host {host} is not an address of this machine; use 127.0.0.1, or 0.0.0.0 for all addresses"
    return f"cannot listen on {host} port {port} ({error.strerror})"


def _taken(host: str, port: int) -> str:
    other = port + 1 if port < 65535 else 1235
    return f"port {port} is taken by {holder(host, port)}; stop it or start with another port: make serve PORT={other}"


def _accepts(address: tuple[Any, ...]) -> bool:
    """Whether somebody already answers where we would (any address: where it is reached from this machine)."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    try:
        with socket.create_connection((host, address[1]), timeout=_PROBE_S):
            return True
    except OSError:
        return False


def is_taken(host: str, port: int) -> bool:
    """Whether a program of this machine answers there."""
    return _accepts((host, port))


def holder(host: str, port: int) -> str:
    """Who listens there, as well as can be known: the program by what it answers, the process by its name."""
    target = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    process = _process_on(port)
    name, has_models = _ask(target, port, "/v1/models")
    if name == SERVER_NAME:  # first: it may speak LM Studio's own API as well
        return "another Opta-LMX" + process
    if _ask(target, port, "/api/v0/models")[1]:
        return "LM Studio" + process
    if has_models:
        return "another OpenAI-compatible server" + process
    return "another program" + process


def _process_on(port: int) -> str:
    try:
        entries = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ""  # macOS shows other users' sockets to root only
    for entry in entries:
        if entry.status == psutil.CONN_LISTEN and entry.laddr and entry.laddr[1] == port and entry.pid is not None:
            return f" ({_process_name(entry.pid)}, pid {entry.pid})" if entry.pid != os.getpid() else ""
    return ""


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "a process"


def _ask(host: str, port: int, path: str) -> tuple[str | None, bool]:
    """The program's name as the answer's ``Server`` header gives it, and whether a list of models came back."""
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        name = response.getheader("Server")
        content = json.loads(response.read(1024 * 1024))
    except (OSError, http.client.HTTPException, ValueError):
        return None, False
    finally:
        connection.close()
    has_models = isinstance(content, dict) and isinstance(content.get("data"), list)
    return name, response.status == 200 and has_models
