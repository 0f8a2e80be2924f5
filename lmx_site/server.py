"""The server process from its first check to its exit code.

Order: home, lock, socket, secret key, logging, Django, databases, then the loop; on the loop the runtime starts, the
socket begins to accept, the announcement is printed. A second instance therefore ends before it touches a database,
and nobody is told of a server that does not answer yet.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lmx_site import access, policy
from lmx_site import announce as announcement
from lmx_site.config import Config, set_config
from lmx_site.home import HomeLock, Places, StartRefused, places, prepare
from lmx_site.listen import bind
from lmx_site.open_files import raise_limit
from lmx_site.paths import home as lmx_home
from lmx_site.secret import ensure_secret_key
from lmx_site.urgency import PRIORITIES

if TYPE_CHECKING:
    from lmx_site.runtime import Runtime

logger = logging.getLogger(__name__)

Announce = Callable[[str], None]


def serve(config: Config, *, announce: Announce) -> int:
    """Run the server in this process until a signal ends it. ``announce`` takes one line for the terminal at a time.

    Returns the exit code: 0 after a clean stop, 1 when it could not start (one line on stderr says why).
    """
    home = lmx_home()
    lock: HomeLock | None = None
    listener: socket.socket | None = None
    raise_limit()
    try:
        prepare(home)
        lock = HomeLock(home)
        lock.acquire()
        listener = bind(config.server.host, config.server.port)
        return _run(config, places(config, home), lock, listener, announce)
    except StartRefused as refusal:
        print(f"lmx: {refusal}", file=sys.stderr)  # noqa: T201  # before logging exists, for the owner's terminal
        return 1
    except OSError as error:  # a key that cannot be read, a log that cannot be written, a full disk
        print(f"lmx: cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        if listener is not None:
            listener.close()
        if lock is not None:
            lock.release()


def _run(config: Config, where: Places, lock: HomeLock, listener: socket.socket, announce: Announce) -> int:
    ensure_secret_key(lmx_home())
    set_config(config)
    access.set_keys(_keys(config))
    policy.set_policy(policy.make_policy(config.server.host, config.server.allowed_hosts, config.security.cors_origins))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lmx_site.settings")
    from lmx_site import logs
    from lmx_site.asgi import application
    from lmx_site.runtime import Runtime as LiveRuntime
    from lmx_site.runtime import set_runtime
    from lmx_site.schema import migrate_if_needed

    writer = logs.set_up(config.logging, where.log_file)
    try:
        for warning in where.warnings:
            logger.warning("%s", warning)
        migrate_if_needed()
        runtime = LiveRuntime(config, lmx_home(), where)
        set_runtime(runtime)
        failure = _run_loop(runtime, application, lock, listener, announce)
        set_runtime(None)
        return _exit_code(failure)
    finally:
        writer.stop()


def _run_loop(
    runtime: Runtime, application: Any, lock: HomeLock, listener: socket.socket, announce: Announce
) -> BaseException | None:
    """Serve until a signal; what kept it from starting, if anything did."""
    from lmx_site.daphne_server import LmxServer
    from lmx_site.lifecycle import stop_everything

    async def start() -> None:
        await runtime.start()
        # What starting made stays: a full collection would walk all of it, 30 ms in which no stream gets a frame.
        gc.collect()
        gc.freeze()
        host, port = listener.getsockname()[:2]
        url = announcement.base_url(host, port)
        lock.publish(host, port, url)
        logger.info("serving %s", url)
        # The socket listens already; the reactor accepts as soon as this returns.
        asyncio.get_running_loop().call_soon(_announce, runtime, url, announce)

    async def stop(answering: list[asyncio.Task[Any]]) -> None:
        logger.info("stopping")
        if runtime.engine is not None:
            with suppress(OSError):  # the terminal may be gone; that is why we stop, then
                announce(announcement.stopping(len(runtime.engine.in_flight()), runtime.config.engine.answers_sec))
        await stop_everything(runtime, answering)

    server = LmxServer(application, listener, on_start=start, on_stop=stop)
    server.run()
    return server.failure


def _keys(config: Config) -> access.Keys:
    security = config.security
    return access.Keys.of(
        security.api_key.get_secret_value() if security.api_key else None,
        security.admin_key.get_secret_value() if security.admin_key else None,
        trust_lan=security.trust_lan,
        clients={
            name: access.Client.of(PRIORITIES[client.priority], client.key.get_secret_value() if client.key else None)
            for name, client in config.clients.items()
        },
    )


def _announce(runtime: Runtime, url: str, say: Announce) -> None:
    config = runtime.config
    assert runtime.catalog is not None
    names = [model.id for model in runtime.catalog.usable() if model.kind == "llm"]
    needs_key = config.security.api_key is not None

    def show(lines: Iterable[str]) -> None:
        for line in lines:
            say(line)

    show(announcement.lines(url, names, config.models.default_model, needs_key=needs_key))
    say(f"Log: {runtime.places.log_file}")
    if names:
        return
    if config.models.demo:
        runtime.offer_demo(say, lambda name: show(announcement.demo_ready(url, name, needs_key=needs_key)))
    else:
        say(f"No model yet: put one (config.json and *.safetensors) below {runtime.places.models}")


def _exit_code(failure: BaseException | None) -> int:
    if failure is None:
        return 0
    logger.error("the server could not start", exc_info=failure)
    print(f"lmx: the server could not start: {failure or type(failure).__name__}", file=sys.stderr)  # noqa: T201
    return 1
