"""Host names and origins."""

from __future__ import annotations

import socket

import psutil
import pytest

from lmx_site.policy import Policy, host_name, make_policy, own_names


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:1234", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:1234", "::1"),
        ("[::1]", "::1"),
        ("mac.local.", "mac.local"),
        ("", None),
        (":80", None),
        ("a:b", None),
        ("a:1:2", None),
        ("[::1", None),
        ("[evil]", None),
        ("[::1]x", None),
        ("a/b", None),
        ("user@localhost", None),
        ("a b", None),
    ],
)
def test_host_name(header: str, name: str | None) -> None:
    assert host_name(header) == name


def test_the_default_allows_this_machine_only() -> None:
    policy = Policy()
    machine = socket.gethostname().lower()
    for host in (
        "localhost:1234",
        "127.0.0.1",
        "[::1]:9",
        machine,
        f"{machine}:1",
        "x.localhost",
        "host.docker.internal",
    ):
        assert policy.allows_host(host), host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.1.7", "0.0.0.0"):
        assert not policy.allows_host(host), host


def test_allowed_hosts_add_names_and_whole_domains() -> None:
    policy = make_policy("127.0.0.1", ["mac.lan", ".ts.net"], [])
    assert policy.allows_host("MAC.lan:1234")
    assert policy.allows_host("mac.tail1.ts.net")
    assert not policy.allows_host("ts.net")
    assert not policy.allows_host("evilts.net")


def test_a_public_address_brings_this_machines_addresses() -> None:
    assert own_names("0.0.0.0") >= own_names("127.0.0.1")
    assert make_policy("192.0.2.9", [], []).allows_host("192.0.2.9:1234")
    mine = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
    addresses = [address for address in mine if address.count(".") == 3 and not address.startswith("127.")]
    for address in addresses:
        assert make_policy("0.0.0.0", [], []).allows_host(f"{address}:1234")
        assert not make_policy("127.0.0.1", [], []).allows_host(address)
    assert not make_policy("0.0.0.0", [], []).allows_host("192.0.2.9")


def test_origins_are_compared_whole() -> None:
    policy = make_policy("127.0.0.1", [], ["http://App.example:3000", "app://obsidian.md"])
    assert policy.allows_origin("http://app.example:3000")
    assert policy.allows_origin("app://obsidian.md")
    for origin in ("http://app.example", "https://app.example:3000", "http://app.example:3000.evil", "null", ""):
        assert not policy.allows_origin(origin), origin
