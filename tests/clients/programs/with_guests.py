"""Looks for somebody outside of this machine, by name and by number, and for somebody at home."""

from __future__ import annotations

import socket


def by_name() -> None:
    socket.create_connection(("elsewhere.invalid", 80))


def by_number() -> None:
    with socket.socket() as outward:
        outward.connect(("192.0.2.1", 80))


def at_home() -> str:
    """Nobody listens there, but it may be tried."""
    with socket.socket() as reserved, socket.socket() as inward:
        reserved.bind(("127.0.0.1", 0))
        try:
            inward.connect(reserved.getsockname())
        except ConnectionRefusedError:
            return "refused"
    return "taken"


CASES = [by_name, by_number, at_home]
