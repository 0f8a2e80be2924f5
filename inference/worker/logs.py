"""What a worker writes to stderr, which the web process keeps and may show: never the text of a request.

Libraries log what they meet, arguments of tool calls among it. While a model loads there is no request and their
messages are let through; from ``seal`` on, of a record that is not this package's own only level and place are told.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

_OURS = "inference"


def place_of(error: BaseException) -> str:
    """Type and innermost place of an exception, without its message, which may hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def one_line(error: BaseException) -> str:
    """The first line of an exception's message with its type, for people."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def print_defect(what: str, error: BaseException) -> None:
    """Every frame of a defect, without the exception's message and without values."""
    frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
    sys.stderr.write(f"{what}: {type(error).__name__}\n{frames}")


class StderrHandler(logging.Handler):
    """Writes records to stderr; ``sealed``, it withholds what others than ourselves have to say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sealed = False

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{record.levelname} {record.name}: {self._text(record)}\n")

    def _text(self, record: logging.LogRecord) -> str:
        ours = record.name.split(".")[0] == _OURS
        if self.sealed and not ours:
            return f"(message withheld) {record.filename}:{record.lineno}"
        try:
            return record.getMessage()
        except Exception as error:
            return f"(message cannot be made: {type(error).__name__}) {record.filename}:{record.lineno}"


_handler = StderrHandler()


def install() -> None:
    """Send all logging to stderr, from warnings on."""
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def seal() -> None:
    """Withhold the messages of libraries from here on, also of those that brought a handler of their own."""
    _handler.sealed = True
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
