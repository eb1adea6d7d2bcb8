"""The load generator: a process of its own that asks, times each answer and checks its body.

It keeps every connection busy with one request at a time, over raw sockets and ``epoll``, with requests
built beforehand. A body seen to be right once is known again by its bytes, so that checking costs a look
into a set.
"""

from __future__ import annotations

import array
import json
import math
import pickle
import select
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: Seconds for what is under way at the end of a measurement.
DRAIN = 10.0
#: Seconds for a number of answers, after which those that came are what is measured.
PATIENCE = 180.0
#: Seconds for one connection to be made.
CONNECT = 10.0
#: Bytes read at a time.
READ = 1 << 18


@dataclass(frozen=True)
class Question:
    """A request, ready to be sent, and its answer."""

    request: bytes
    expected: float


@dataclass
class Plan:
    """What to send, and for how long."""

    port: int
    questions: list[Question]
    connections: int
    #: Which questions, in this order, over and over; all in turn where it is empty.
    order: list[int] = field(default_factory=list)
    #: Seconds, or answers, that are measured, after as many as are not.
    warm: float = 0.5
    seconds: float = 2.0
    counted: bool = False
    #: Seconds that a connection waits after an answer.
    pause: float = 0.0
    #: Where the prediction is in the JSON of an answer.
    where: list[str | int] = field(default_factory=list)
    #: What a reply has in its head if its model was loaded for it.
    loaded: bytes = b""


@dataclass
class Outcome:
    """What came of it: answers per second, latencies in milliseconds, counts."""

    rate: float
    p50: float
    p99: float
    longest: float
    good: int
    refused: int
    wrong: int
    failed: int
    loaded: int
    first_problem: str


class _Connection:
    __slots__ = ("buffer", "question", "sent", "sock")

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.buffer = b""
        self.question = -1
        self.sent = 0.0


class Generator:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.poll = select.epoll()
        self.connections: dict[int, _Connection] = {}
        self.order = plan.order or list(range(len(plan.questions)))
        self.position = 0
        self.known: list[set[bytes]] = [set() for _ in plan.questions]
        self.paused: deque[tuple[float, _Connection]] = deque()
        #: What is read goes through it: as many bytes for each reply would be mapped and unmapped each time.
        self.read = memoryview(bytearray(READ))
        self.sending = True
        self.busy = 0
        self._reset()

    def _reset(self) -> None:
        self.latencies = array.array("d")
        self.refused = self.wrong = self.failed = self.loaded = 0
        self.problem = ""

    def run(self) -> Outcome:
        """Warm up, measure, and let what is under way end."""
        plan = self.plan
        for _ in range(plan.connections):
            connection = _Connection()
            self._connect(connection)
            self._send(connection)
        if plan.warm:
            self._phase(plan.warm)
        self._reset()
        start = time.perf_counter()
        self._phase(plan.seconds)
        elapsed = time.perf_counter() - start
        outcome = self._outcome(elapsed)
        self.sending = False
        deadline = time.perf_counter() + DRAIN
        while self.busy and time.perf_counter() < deadline:
            self._turn(0.1)
        return outcome

    def _phase(self, amount: float) -> None:
        deadline = time.perf_counter() + (PATIENCE if self.plan.counted else amount)
        while time.perf_counter() < deadline and not (self.plan.counted and self._answers() >= amount):
            self._turn(deadline - time.perf_counter())

    def _answers(self) -> int:
        return len(self.latencies) + self.refused + self.wrong + self.failed

    def _turn(self, patience: float) -> None:
        """Deal with what has arrived."""
        if self.paused:
            patience = min(patience, self.paused[0][0] - time.perf_counter())
        for number, _ in self.poll.poll(max(0.0, patience)):
            connection = self.connections[number]
            try:
                count = connection.sock.recv_into(self.read)
            except OSError as error:
                self._lost(connection, error)
                continue
            if not count:
                self._lost(connection, ConnectionError("closed"))
            else:
                data = bytes(self.read[:count])
                self._received(connection, connection.buffer + data if connection.buffer else data)
        while self.paused and self.paused[0][0] <= time.perf_counter():
            self._send(self.paused.popleft()[1])

    def _received(self, connection: _Connection, data: bytes) -> None:
        at = data.find(b"\r\n\r\n")
        body = data[at + 4 :]
        if at < 0 or not data.startswith(b"HTTP/1.1 200") or body not in self.known[connection.question]:
            whole = body_of(data)
            if whole is None:
                connection.buffer = data
                return
            self._judge(connection, data, body, whole)
        else:
            self.latencies.append(time.perf_counter() - connection.sent)
        if self.plan.loaded and was_loaded(data[:at], self.plan.loaded):
            self.loaded += 1
        connection.buffer = b""
        self.busy -= 1
        if closes(data[:at]):
            self._close(connection)
            self._connect(connection)
        if self.plan.pause:
            self.paused.append((time.perf_counter() + self.plan.pause, connection))
        else:
            self._send(connection)

    def _judge(self, connection: _Connection, data: bytes, body: bytes, whole: bytes) -> None:
        """Look at an answer that was not seen before."""
        if not data.startswith(b"HTTP/1.1 200"):
            self.refused += 1
            self.problem = self.problem or f"{data[9:60]!r} {whole[:200]!r}"
        elif not is_right(whole, self.plan.where, self.plan.questions[connection.question].expected):
            self.wrong += 1
            self.problem = self.problem or f"wrong: {whole[:200]!r}"
        else:
            self.latencies.append(time.perf_counter() - connection.sent)
            known = self.known[connection.question]
            if len(known) < 100:
                known.add(body)

    def _lost(self, connection: _Connection, error: Exception) -> None:
        if connection.question >= 0:
            self.busy -= 1
            self.failed += 1
            self.problem = self.problem or f"connection: {error}"
        self._close(connection)
        if self.sending:
            time.sleep(0.001)
            self._connect(connection)
            self._send(connection)

    def _connect(self, connection: _Connection) -> None:
        connection.sent = time.perf_counter()
        connection.sock = socket.create_connection(("127.0.0.1", self.plan.port), timeout=CONNECT)
        connection.sock.settimeout(None)  # with one, each call would look by another whether it may be made
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.question, connection.buffer = -1, b""
        self.connections[connection.sock.fileno()] = connection
        self.poll.register(connection.sock, select.EPOLLIN)

    def _close(self, connection: _Connection) -> None:
        self.poll.unregister(connection.sock)
        del self.connections[connection.sock.fileno()]
        connection.sock.close()

    def _send(self, connection: _Connection) -> None:
        if not self.sending:
            connection.question = -1
            return
        connection.question = self.order[self.position]
        self.position = (self.position + 1) % len(self.order)
        self.busy += 1
        connection.sent = time.perf_counter()
        try:
            connection.sock.sendall(self.plan.questions[connection.question].request)
        except OSError as error:
            self._lost(connection, error)

    def _outcome(self, elapsed: float) -> Outcome:
        milliseconds = np.array(self.latencies) * 1e3
        p50, p99, longest = np.quantile(milliseconds, (0.5, 0.99, 1.0)) if len(milliseconds) else (math.nan,) * 3
        counts = (len(milliseconds), self.refused, self.wrong, self.failed, self.loaded)
        rate = len(milliseconds) / elapsed
        return Outcome(rate, float(p50), float(p99), float(longest), *counts, self.problem)


def closes(head: bytes) -> bool:
    """Say whether a server ends the connection after this reply."""
    return b"\r\nconnection: close" in head.lower()


def was_loaded(head: bytes, mark: bytes) -> bool:
    """Say whether a model was loaded for this reply: by a mark, which a time may follow that is not zero."""
    _, found, rest = head.partition(mark)
    return bool(found) and not rest.startswith(b"0.000")


def body_of(data: bytes) -> bytes | None:
    """Return the body of a reply, or None if it is not whole."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    headers = dict(line.lower().partition(b":")[::2] for line in head.split(b"\r\n")[1:])
    if b"content-length" in headers:
        return body if len(body) >= int(headers[b"content-length"]) else None
    if b"chunked" not in headers.get(b"transfer-encoding", b""):
        return body
    parts: list[bytes] = []
    while True:
        size, found, rest = body.partition(b"\r\n")
        if not found or len(rest) < int(size, 16) + 2:
            return None
        if int(size, 16) == 0:
            return b"".join(parts)
        parts.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]


def is_right(body: bytes, where: list[str | int], expected: float) -> bool:
    """Say whether a body holds the expected prediction."""
    try:
        found: Any = json.loads(body)
        for key in where:
            found = found[key]
        while isinstance(found, list):
            (found,) = found
        return math.isclose(found, expected, rel_tol=1e-6)
    except (ValueError, KeyError, IndexError, TypeError):
        return False


class Load:
    """A plan that runs in a process of its own."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdin is not None
        pickle.dump(plan, self._process.stdin)
        self._process.stdin.flush()

    def outcome(self) -> Outcome:
        """Wait for the end.

        :raises RuntimeError: if the generator failed, for instance because no connection can be made.
        """
        try:
            output, problems = self._process.communicate()
        except BaseException:
            self._process.kill()
            raise
        if self._process.returncode:
            raise RuntimeError(problems.decode().strip().rpartition("\n")[2])
        return Outcome(**json.loads(output))


def main() -> None:
    """Run the plan on the standard input."""
    plan: Plan = pickle.load(sys.stdin.buffer)
    sys.stdout.write(json.dumps(asdict(Generator(plan).run())))


if __name__ == "__main__":
    main()
