"""Twisted's HTTP/1.1 parser, whose refusals are answers.

Twisted hangs up on a line that is too long without a word, answers what is no HTTP with an empty 400, and fails over a
Content-Length of five thousand digits. Here each is a status with a sentence, in the shape of the path as far as that
was read. Nothing that comes after it on the connection is looked at, but it is read for a moment: closing on a client
that still sends would reset the connection, and the answer would be lost.
"""

from __future__ import annotations

from http.client import responses as _phrases
from typing import Any, cast

from twisted.web.http import HTTPChannel

from inference.errors import BodyTooLarge, HeadersTooLarge, InvalidRequest, LmxError, UriTooLong
from inference.protocols.errors import error_bytes, error_headers
from lmx_site.access import is_api
from lmx_site.observe import log_access, new_request_id
from lmx_site.policy import MAX_BODY_BYTES

LINGER_S = 2
_LONGEST_LENGTH = 18  # digits of a Content-Length; Python refuses to read some thousand
_SHOWN = 200


def refusal(error: LmxError, method: str, path: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an answer that no application made; tells the access log of it."""
    if is_api(path):
        body, kind = error_bytes(error, path), "application/json"
    else:
        body, kind = (error.message + "\n").encode(), "text/plain; charset=utf-8"
    identity = new_request_id()
    log_access({"method": method, "path": path, "lmx.request_id": identity}, error.status, 0.0)
    told = {"content-type": kind, "content-length": str(len(body)), "x-request-id": identity, **error_headers(error)}
    return [(name.encode(), value.encode()) for name, value in told.items()], body


class Channel(HTTPChannel):
    """One connection. ``refuse`` answers in place of the application, at any point of a request, and ends it."""

    _refused = False

    def refuse(self, error: LmxError) -> None:
        if self._refused:
            return
        self._refused = True
        headers, body = refusal(error, self._text("_command", "?"), self._text("_path", "/").split("?", 1)[0])
        first = f"HTTP/1.1 {error.status} {_phrases[error.status]}".encode()
        lines = [first, *(b"%b: %b" % header for header in headers), b"connection: close", b"", body]
        transport = cast("Any", self.transport)
        transport.write(b"\r\n".join(lines))
        self._networkProducer.unregisterProducer()
        transport.loseWriteConnection()
        self.setTimeout(LINGER_S)

    def dataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self._refused:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._refused:
            super().rawDataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        digits = value.strip()
        if name.lower() == b"content-length" and digits.isdigit() and len(digits) > _LONGEST_LENGTH:
            self.refuse(BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES:,} bytes"))
        return not self._refused and bool(super().headerReceived(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        if not hasattr(self, "_path"):  # it is the request's own line
            command, _, rest = line[: self.totalHeadersSize].partition(b" ")
            vars(self).update(_command=command[:_SHOWN], _path=rest.partition(b"?")[0][:_SHOWN])
            self.refuse(UriTooLong(f"the request line is longer than {self.totalHeadersSize:,} bytes"))
        self.refuse(HeadersTooLarge(f"a header is longer than {self.totalHeadersSize:,} bytes"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted calls it wherever it gives a request up."""
        if self._receivedHeaderSize > self.totalHeadersSize:
            self.refuse(HeadersTooLarge(f"the headers are longer than {self.totalHeadersSize:,} bytes together"))
        elif self._receivedHeaderCount > self.maxHeaders:
            self.refuse(HeadersTooLarge(f"the request has more than {self.maxHeaders} headers"))
        self.refuse(InvalidRequest("this is no request that can be read; HTTP/1.1 is spoken here", code="invalid_http"))

    def _text(self, name: str, default: str) -> str:
        found = getattr(self, name, None)
        return found.decode("latin1") if found else default
