"""One chat completion over HTTP, to the address the user gave and to no other.

``http.client`` by itself follows no redirect and asks no proxy, so a report cannot end up anywhere
else. Servers that are busy or break are asked again, later and later.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from endoclip_jax.errors import UserError
from endoclip_jax.records.extraction.llm_prompt import FORMS, Message, request_body

LONGEST_WAIT_S = 60.0
LARGEST_REPLY = 8 << 20
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FORM_REFUSED = frozenset({400, 415, 422, 501})


class ServerFailed(Exception):
    """The server gave no usable answer to this request, after every try."""


class _Unreachable(ServerFailed):
    """Nothing listens at the address."""


@dataclass(frozen=True)
class Answer:
    """What the model wrote; ``complete`` is False if the server cut it off at ``max_tokens``."""

    text: str
    complete: bool
    seconds: float


@dataclass(frozen=True)
class _Reply:
    status: int
    body: bytes
    retry_after_s: float | None
    content: tuple[str, bool] | None = None  # text and whether it is complete


class ChatClient:
    """Asks one server; may be used by several threads at once.

    ``tries`` requests are made in all for one answer, ``pause_s`` apart at first and doubling;
    each may take ``timeout_s`` from connection to last byte. ``form`` is one of ``FORMS``, or
    "auto" to go down the list until the server takes one.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        form: str = "auto",
        max_tokens: int = 4096,
        timeout_s: float = 300.0,
        tries: int = 7,
        pause_s: float = 1.0,
    ):
        self._url = _parsed(base_url)
        self._model = model
        self._key = api_key
        self._forms = FORMS if form == "auto" else (form,)
        self._form = self._forms[0]
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._tries = tries
        self._pause_s = pause_s
        self._replied = threading.Event()
        self.repeats = 0  # requests made again because the server was busy, broke or timed out
        self._counting = threading.Lock()

    def ask(self, messages: list[Message]) -> Answer:
        """The model's answer.

        Raises:
          ServerFailed: the server kept failing, or refused this request in every form.
          UserError: nothing listens at the address, or it refuses every request of this kind.
        """
        started = time.monotonic()
        refusals = []
        for form in self._forms[self._forms.index(self._form) :]:
            body = request_body(self._model, messages, self._max_tokens, form)
            # A lone surrogate of a broken report cannot be sent; "?" stands for it.
            reply = self._patiently(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
            if reply.content is None:
                refusals.append(f"{form}: HTTP {reply.status} {_excerpt(reply.body)}")
                continue
            self._form = form  # only now: a report that is too long is refused in every form
            return Answer(*reply.content, time.monotonic() - started)
        raise ServerFailed(f"the request was refused ({'; '.join(refusals)})")

    def _patiently(self, payload: bytes) -> _Reply:
        """A reply that is no sign of overload, after at most ``tries`` requests."""
        trouble = ""
        for attempt in range(self._tries):
            wait = self._pause_s * 2**attempt
            try:
                reply = self._post(payload)
            except _Unreachable as error:
                if not self._replied.is_set():
                    raise UserError(
                        f"nothing answers at {self._url.geturl()} ({error}): start the server or "
                        "correct --llm.base_url"
                    ) from error
                trouble = str(error)
            except ServerFailed as error:
                trouble = str(error)
            else:
                self._replied.set()
                if reply.status not in _BUSY:
                    return self._checked(reply)
                trouble = f"HTTP {reply.status} {_excerpt(reply.body)}"
                wait = max(wait, reply.retry_after_s or 0.0)
            if attempt + 1 < self._tries:
                with self._counting:
                    self.repeats += 1
                time.sleep(min(wait, LONGEST_WAIT_S))
        raise ServerFailed(f"no answer after {self._tries} tries, last: {trouble}")

    def _checked(self, reply: _Reply) -> _Reply:
        if reply.status == 200 or reply.status in _FORM_REFUSED:
            return reply
        where = f"{self._url.geturl()} answers HTTP {reply.status} {_excerpt(reply.body)}"
        if 300 <= reply.status < 400:
            raise UserError(f"{where}: redirects are not followed, give the final --llm.base_url")
        if reply.status in (401, 403):
            raise UserError(f"{where}: name the key's variable with --llm.api_key_env")
        if reply.status in (404, 405):
            raise UserError(f"{where}: correct --llm.base_url or --llm.model")
        raise ServerFailed(f"HTTP {reply.status} {_excerpt(reply.body)}")

    def _post(self, payload: bytes) -> _Reply:
        deadline = time.monotonic() + self._timeout_s
        connection = _connection(self._url, self._timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise
            except OSError as error:
                raise _Unreachable(_reason(error)) from error
            connection.request("POST", f"{self._url.path}/chat/completions", payload, headers)
            response = connection.getresponse()
            body = _read_until(connection, response, deadline)
            content = _content(body) if response.status == 200 else None
            retry_after = _seconds(response.getheader("Retry-After"))
            return _Reply(response.status, body, retry_after, content)
        except TimeoutError as error:
            raise ServerFailed(f"no answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerFailed(f"the connection broke ({_reason(error)})") from error
        finally:
            connection.close()


def _parsed(base_url: str) -> SplitResult:
    url = urlsplit(base_url.rstrip("/"))
    try:
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable or url.query or url.fragment or url.username is not None:
        raise UserError(
            f"--llm.base_url={base_url} is no address of a server: give e.g. "
            "http://localhost:8000/v1"
        )
    return url


def _connection(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=timeout_s)


def _read_until(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float
) -> bytes:
    """The body, by a deadline for all of it: a socket's time-out is for each byte anew."""
    chunks: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        chunk = response.read1(1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_REPLY:
            raise http.client.HTTPException(f"a reply of more than {LARGEST_REPLY} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"".join(chunks), response.length)
    return b"".join(chunks)


def _content(body: bytes) -> tuple[str, bool]:
    """(text, complete) of a chat completion."""
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerFailed(f"the reply is no chat completion: {_excerpt(body)}") from error
    return text if isinstance(text, str) else "", choice.get("finish_reason") != "length"


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None  # a date; the doubling pause stands


def _excerpt(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split())


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def as_json(answer: Answer) -> dict[str, Any]:
    """An answer as the cache keeps it."""
    return {"text": answer.text, "complete": answer.complete, "seconds": round(answer.seconds, 3)}
