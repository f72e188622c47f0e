"""What stands before the page's server: it lets through only what the page itself asks for.

A browser sends requests for any web page that its user opens, also to servers on the user's own machine. So the names
under which this server is reached (``Host``) and the pages that ask (``Origin``) are checked, and of gradio's interface
only what the page needs is open, with arguments as the page sends them.
"""

import ipaddress
import json
import logging
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictInt, StrictStr, TypeAdapter, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
NAME_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?")
API = "/gradio_api"
UPLOAD, CALL = f"{API}/upload", f"{API}/queue/join"
WRITES = (UPLOAD, CALL, f"{API}/reset", f"{API}/cancel")
FILE = f"{API}/file="
# What gradio offers beyond the page: fetching from other servers, pages of its developers.
CLOSED = (*(f"{API}/{name}" for name in ("proxy=", "deep_link", "stream/", "custom_", "dev/", "file/")), "/monitoring")
MAX_JSON_BYTES = 4 << 20
FORM_BYTES = 1 << 16  # of an upload's form around the file
MAX_SESSION_CHARS = 100

Kind = Literal["file", "text"]
OBJECT = TypeAdapter(dict[str, Any])


class Call(BaseModel):
    """What gradio needs of a call; whatever else a client sends is left out."""

    fn_index: StrictInt
    session_hash: StrictStr = Field(min_length=1, max_length=MAX_SESSION_CHARS)
    data: list[Any]


@dataclass(frozen=True)
class Names:
    """Under which names the page is served."""

    names: frozenset[str]  # values of ``Host`` without the port, in lower case
    port: int
    is_any_address: bool = False  # each is one of them: a name can be made to lead here, an IP address cannot

    @classmethod
    def of(cls, host: str, port: int) -> "Names":
        """The names of a server that listens on ``host``.

        Raises:
            OSError: there is no such host.
        """
        address = ipaddress.ip_address(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0].split("%")[0])
        given = frozenset(name.lower() for name in (_bracketed(host), _bracketed(str(address))))
        if address.is_loopback:
            return cls(LOCAL_NAMES | given, port)
        if address.is_unspecified:
            return cls(LOCAL_NAMES | {socket.gethostname().lower(), socket.getfqdn().lower()}, port, True)
        return cls(given, port)

    def include(self, host: str, default_port: int) -> bool:
        """Whether ``host``, as in ``localhost:7860``, is a name of the page."""
        match = NAME_AND_PORT.fullmatch(host.lower())
        if match is None or int(match[2] or default_port) != self.port:
            return False
        return match[1] in self.names or (self.is_any_address and _is_address(match[1]))


@dataclass(frozen=True)
class PageGuard:
    """An ASGI application around gradio's."""

    app: ASGIApp
    names: Names
    uploads: str  # real path of the folder of uploaded files; no other file is shown or taken as an argument
    max_upload_bytes: int  # of one request
    calls: Mapping[int, Sequence[Kind]]  # kinds of the arguments of each function of the page, by its number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            self._check_sender(scope)
            self._check_path(scope)
            if scope["method"] == "POST":
                receive = await self._check_body(scope, receive)
            await self.app(scope, receive, send)
        except HTTPException as refused:
            await PlainTextResponse(f"{refused.detail}\n", refused.status_code)(scope, receive, send)
        except Exception as error:  # the server's edge: the answer (500) is sent, the server goes on
            if os.environ.get("TRACEBACK"):
                raise
            logger.error("%s failed: %s: %s", scope["path"][:100], type(error).__name__, error)

    def _check_sender(self, scope: Scope) -> None:
        """Refuse other hosts and other pages. Gradio's page uses no websockets."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        # A client that names no port, such as a health check, is no browser that was led here.
        if len(hosts) != 1 or not self.names.include(hosts[0], self.names.port):
            raise HTTPException(403, f"the page is not served as {', '.join(hosts)!r}; see --host in docs/app.md")
        for origin in origins:
            scheme, _, host = origin.partition("://")
            if scheme != "http" or not self.names.include(host, 80):
                raise HTTPException(403, "requests of other pages are refused")
        # Of requests without an Origin (pictures, scripts, frames), current browsers say who asks.
        is_opened = scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_opened:
            raise HTTPException(403, "requests of other pages are refused")
        if scope["type"] != "http":
            raise HTTPException(403, "the page uses no websockets")

    def _check_path(self, scope: Scope) -> None:
        method, path = scope["method"], scope["path"]
        if method not in ("GET", "HEAD", "POST"):
            raise HTTPException(405, "method not allowed")
        if path.startswith(CLOSED) or (method == "POST" and path not in WRITES):
            raise HTTPException(404, "not a part of this page")
        if path.startswith(FILE) and not self._is_upload(path.removeprefix(FILE)):
            raise HTTPException(404, "no such upload")

    def _is_upload(self, path: str) -> bool:
        if "\0" in path or not os.path.isabs(path):
            return False
        real = os.path.realpath(path)
        return real.startswith(self.uploads + os.sep) and os.path.isfile(real)

    async def _check_body(self, scope: Scope, receive: Receive) -> Receive:
        """Check what is sent; returns the ``receive`` to go on with."""
        if scope["path"] == UPLOAD:
            length = int(Headers(scope=scope).get("content-length", 0))
            if length > self.max_upload_bytes + FORM_BYTES:
                raise HTTPException(413, self._too_large())
            return self._limited(receive)
        text = await _read(Request(scope, receive))
        try:
            body = (
                self._checked_call(Call.model_validate_json(text))
                if scope["path"] == CALL
                else OBJECT.validate_json(text)
            )
        except ValidationError as error:
            raise HTTPException(400, str(error.errors()[0]["msg"])) from None
        content = json.dumps(body).encode()
        # The length and the encoding that the client named were those of its own text.
        MutableHeaders(scope=scope).update({"content-length": str(len(content)), "content-type": "application/json"})
        return _replayed(content, receive)

    def _limited(self, receive: Receive) -> Receive:
        """``receive`` of an upload that ends, its part of a file removed, when there is too much of it or no more."""
        num_bytes, is_complete = 0, False

        async def limited() -> Message:
            nonlocal num_bytes, is_complete
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_upload_bytes + FORM_BYTES:
                raise MultiPartException(self._too_large())
            if message["type"] == "http.disconnect" and not is_complete:
                raise MultiPartException("the upload was broken off")
            is_complete = is_complete or not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> str:
        return f"an upload exceeds the maximum allowed size of {self.max_upload_bytes >> 20} MB (--max_upload_mb)"

    def _checked_call(self, call: Call) -> dict:
        """A call, rebuilt from checked parts."""
        kinds = self.calls.get(call.fn_index)
        if kinds is None or len(call.data) != len(kinds):
            raise HTTPException(400, "no function of the page takes such data")
        values = [self._checked_value(kind, value) for kind, value in zip(kinds, call.data, strict=True)]
        return call.model_dump() | {"data": values}

    def _checked_value(self, kind: Kind, value: object) -> str | dict | None:
        if kind == "text":
            if not isinstance(value, str):
                raise HTTPException(400, "data: expected text")
            return value
        if value is None:
            return None
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str) or not self._is_upload(path):
            raise HTTPException(400, "data: expected an uploaded file")
        return {"path": os.path.realpath(path), "meta": {"_type": "gradio.FileData"}}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def _read(request: Request) -> bytearray:
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_JSON_BYTES:
                raise HTTPException(413, f"a request exceeds {MAX_JSON_BYTES >> 20} MB")
    except ClientDisconnect:
        raise HTTPException(400, "the request was broken off") from None
    return content


def _replayed(content: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``content`` first."""
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed
