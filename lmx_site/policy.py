"""The edge's rules as values: which host names are ours and which origins may use the server."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil

from lmx_site.access import is_loopback

MAX_BODY_BYTES = 32_000_000
# Containers reach this machine by these names, and no web page can own them (".internal" is reserved).
_CONTAINER_NAMES = ("host.docker.internal", "host.containers.internal", "gateway.docker.internal")


@dataclass(frozen=True, slots=True)
class Policy:
    """``hosts`` are lower-case names and addresses without a port; one that starts with a dot covers its subdomains.

    ``public`` says that other machines can reach us: then this machine's addresses, which change, are ours too.
    """

    hosts: frozenset[str] = field(default_factory=lambda: frozenset(own_names()))
    cors_origins: frozenset[str] = frozenset()
    public: bool = False

    def allows_host(self, header: str) -> bool:
        name = host_name(header)
        if name is None:
            return False
        if name in self.hosts or name.endswith(".localhost") or is_loopback(name):
            return True
        if any(pattern.startswith(".") and name.endswith(pattern) for pattern in self.hosts):
            return True
        return self.public and _is_address(name) and name in _addresses()

    def allows_origin(self, origin: str) -> bool:
        return origin.lower() in self.cors_origins


def host_name(header: str) -> str | None:
    """The name in a Host header, without port, brackets or final dot; None for what cannot be one."""
    text = header.strip().lower()
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        return inside if closed and (not rest or _is_port(rest)) and _is_address(inside) else None
    name, colon, port = text.partition(":")
    if not name or (colon and not port.isdecimal()) or any(c in name for c in "/\\@ \t?#%"):
        return None
    return name.rstrip(".") or None


def own_names(bind: str = "127.0.0.1") -> set[str]:
    """The names this machine answers to when it listens on ``bind``, and that address."""
    machine = socket.gethostname().lower().rstrip(".")
    names = {"localhost", *_CONTAINER_NAMES}
    if machine:
        short = machine.split(".", 1)[0]
        names |= {machine, short, f"{short}.local"}
    if not is_loopback(bind):
        names.add(bind.lower())
    return names


def make_policy(bind: str, allowed_hosts: Iterable[str], cors_origins: Iterable[str]) -> Policy:
    hosts = own_names(bind) | {host.lower() for host in allowed_hosts}
    origins = frozenset(origin.lower() for origin in cors_origins)
    return Policy(frozenset(hosts), origins, public=not is_loopback(bind))


def _addresses() -> set[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        entry.address.split("%", 1)[0].lower()
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in families
    }


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isdecimal()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_policy: Policy | None = None


def set_policy(policy: Policy | None) -> None:
    """The policy of this process; None means the default (own names, no foreign origin)."""
    global _policy
    _policy = policy


def get_policy() -> Policy:
    global _policy
    if _policy is None:
        _policy = Policy()
    return _policy
