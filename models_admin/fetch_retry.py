"""What passes by itself is tried again, with growing waits, until nothing has come for too long. For the child only.

That is a connection that cannot be made, is cut or falls silent, and an answer of 5xx, 408, 425 or 429, whose
``Retry-After`` is honoured up to a bound. Whatever else the Hub says is final.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

LONGEST_RETRY_AFTER_S = 120.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_LASTING = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, OfflineModeIsEnabled)
T = TypeVar("T")


class Patience:
    """``first_s`` is the first wait, ``most_s`` the longest, ``give_up_s`` how long nothing may have come.

    ``tell`` hears one sentence before each wait; ``brought`` says how many bytes have come so far.
    """

    def __init__(
        self, first_s: float, most_s: float, give_up_s: float, tell: Callable[[str], None], brought: Callable[[], int]
    ) -> None:
        self._wait = wait_exponential_jitter(initial=first_s, max=most_s, jitter=first_s / 4)
        self._give_up = stop_after_delay(give_up_s)
        self._tell, self._brought = tell, brought
        self._before = 0

    def __call__(self, work: Callable[[], T]) -> T:
        """The result of ``work``; raises what it raised last."""
        self._before = self._brought()
        retrying = Retrying(
            retry=retry_if_exception(lambda error: passing(error) is not None),
            wait=self._next_wait,
            stop=self._give_up,
            after=self._begin_anew_if_further,
            before_sleep=self._say,
            sleep=time.sleep,
            reraise=True,
        )
        result: T = retrying(work)
        return result

    def _next_wait(self, state: RetryCallState) -> float:
        wished = _retry_after(_error_of(state)) or 0.0
        return max(float(self._wait(state)), min(wished, LONGEST_RETRY_AFTER_S))

    def _begin_anew_if_further(self, state: RetryCallState) -> None:
        """A connection that is cut again and again but brings something is no reason to wait longer, or to give up."""
        now = self._brought()
        if now != self._before:
            self._before = now
            state.attempt_number, state.start_time = 1, time.monotonic()

    def _say(self, state: RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        self._tell(f"waits {_seconds(float(wait))}: {passing(_error_of(state))}")


def passing(error: BaseException | None) -> str | None:
    """What has happened, in words, if trying again can help; None for what is final."""
    if isinstance(error, _LASTING):
        return None
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 0
        return f"the Hub answered {status}" if status in _PASSING else None
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.ProxyError):
        return "the Hub cannot be reached"
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return "the Hub has fallen silent"
    if isinstance(error, httpx2.TransportError | ConnectionError):
        return "the connection was cut"
    return None


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _retry_after(error: BaseException | None) -> float | None:
    """Seconds that the Hub asks to wait, where it says seconds and no date."""
    response: Any = getattr(error, "response", None)
    said = "" if response is None else str(response.headers.get("Retry-After", "")).strip()
    return float(said) if said.isascii() and said.isdigit() and len(said) < 10 else None


def _seconds(wait: float) -> str:
    return f"{wait:.0f} s" if wait >= 1 else "a moment"
