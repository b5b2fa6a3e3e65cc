"""A stand-in for an OpenAI-compatible server: real sockets, the protocol's own replies.

What it answers is a function of the request, given by the test. Each request is noted before it is
answered, with the reports and the refusals it holds.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from endoclip_jax.records.extraction.rules import extract


@dataclass
class Reply:
    """One HTTP reply: a chat completion of ``content``, or ``status`` with ``body``."""

    content: str = ""
    finish_reason: str = "stop"
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0  # bytes promised but never sent
    pieces_s: float = 0.0  # pause after each byte


@dataclass
class Request:
    """What a client sent."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def report(self) -> str:
        return re.findall(r"<report>\n(.*?)\n</report>", self.body["messages"][1]["content"], re.S)[
            -1
        ]

    @property
    def form(self) -> str:
        return self.body.get("response_format", {}).get("type", "text")

    @property
    def turn(self) -> int:
        """0 for the first answer to a report, 1 after the first refusal."""
        return (len(self.body["messages"]) - 2) // 2

    @property
    def last(self) -> str:
        return self.body["messages"][-1]["content"]


def honest(request: Request) -> Reply:
    """Answers as the rules read the report."""
    return Reply(json.dumps(extract(request.report), ensure_ascii=False))


class ChatServer:
    """A running server: its address, the requests it got, and how many at once."""

    def __init__(self, answer: Callable[[Request], Reply]):
        self.answer = answer
        self.requests: list[Request] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"chat": self})
        self.http = _Quiet(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    @property
    def asked(self) -> list[str]:
        """Every report asked about, with its turn."""
        return [f"{request.report}#{request.turn}" for request in self.requests]


@contextmanager
def serving(answer: Callable[[Request], Reply] = honest) -> Iterator[ChatServer]:
    """A server on a free local port for the length of the block."""
    server = ChatServer(answer)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """A client that hangs up is what many of the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, dict(self.headers), body)
        chat = self.chat
        with chat.lock:
            chat.requests.append(request)
            chat.at_once += 1
            chat.most_at_once = max(chat.most_at_once, chat.at_once)
        try:
            self._send(chat.answer(request))
        finally:
            with chat.lock:
                chat.at_once -= 1

    def _send(self, reply: Reply) -> None:
        payload = reply.body if reply.body is not None else _completion(reply)
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload) + reply.missing))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.pieces_s:
            for byte in payload:
                self.wfile.write(bytes([byte]))
                threading.Event().wait(reply.pieces_s)
        else:
            self.wfile.write(payload)
        if reply.missing:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments) -> None:
        """Nothing on standard error."""


def _completion(reply: Reply) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.content},
        "finish_reason": reply.finish_reason,
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    completion = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**completion, "choices": [choice], "usage": usage}).encode()
