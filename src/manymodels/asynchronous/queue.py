"""The queue: a table of SQLite, so that what has been taken on is never lost, however the server ends."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import msgspec

from ..endpoint import Topics
from ..errors import BadMember, ManyModelsError, Overloaded, SettingsError

logger = logging.getLogger(__name__)

Write = Callable[[sqlite3.Connection], Any]

#: Version of the table; another one is not read.
VERSION = 1
#: Seconds for which an answered invocation is remembered, so that a client that sends it again is told the same.
REMEMBERED = 600.0
#: Seconds between deletions of those that were remembered long enough.
SWEEP = 60.0

_WAITING, _RUNNING, _ENDED = range(3)
_TABLE = """
CREATE TABLE invocations (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    output TEXT NOT NULL UNIQUE,
    fingerprint BLOB NOT NULL,
    turn INTEGER NOT NULL,
    due REAL NOT NULL,
    state INTEGER NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0,
    content BLOB NOT NULL
);
CREATE INDEX turns ON invocations (state, turn, number);
"""


class Queued(msgspec.Struct, frozen=True):
    """An invocation in the queue."""

    #: Of this one alone, whatever the client calls it.
    id: str
    endpoint: str
    #: The TargetModel; None where the endpoint has one model.
    target: str | None
    #: The name of the model in this server.
    model: str
    #: What the model is told of the request, names in lower case.
    headers: dict[str, str]
    #: Where its input is; None if `body` is the input.
    input: str | None
    body: bytes
    #: Where its answer is to be, and where what it failed by.
    output: str
    failure: str
    #: When nobody wants it begun any more, by `time.time`.
    expires: float
    #: Seconds the model has for it.
    timeout: float
    #: When it came, by `time.time`.
    received: float = 0.0
    #: What the client calls it.
    inference: str = ""
    #: Who is told once it has ended; None: nobody.
    topics: Topics | None = None

    def fingerprint(self) -> bytes:
        """Return what two requests have in common that ask for the same."""
        asked = (self.endpoint, self.target, self.headers, self.input, self.body, self.output, self.timeout)
        return hashlib.sha256(msgspec.msgpack.encode(asked, order="sorted")).digest()


class Begun(msgspec.Struct, frozen=True):
    """An invocation that is being answered."""

    number: int
    queued: Queued
    #: How many times it had been begun before.
    before: int
    #: Why nothing but its id, model and output is known; empty if all is.
    damage: str = ""


class Queue:
    """Invocations in the order of their turns.

    Turns are given as in fair queueing: a model with thousands of invocations and one with a single one alternate.
    All that is written in one turn of the event loop is one transaction, which is on the disk when it is said to be.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Open the queue in a folder, which is made if need be; what ran when its last owner ended waits again.

        :param limit: most invocations that may wait or run.
        :raises SettingsError: if another server has it, or it cannot be read or written.
        """
        self._limit = limit
        #: SQLite is spoken to in this thread alone.
        self._thread = ThreadPoolExecutor(1, "asynchronous")
        self._writes: list[tuple[Write, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None
        self.waiting = self.running = 0
        #: The last turn of each model that waits, and that of the invocation begun last.
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._swept = 0.0
        #: Whether the last transaction failed, which is logged when it first does.
        self._failing = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = self._thread.submit(self._open, folder / "queue.sqlite").result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            why = "another server uses it" if "locked" in str(error) else str(error)
            raise SettingsError(
                f"the queue in {str(folder)!r} cannot be used: {why}; choose another folder with --async-queue"
            ) from error

    def _open(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.execute("COMMIT")
                database.executescript(f"BEGIN; {_TABLE} PRAGMA user_version = {VERSION}; COMMIT; BEGIN IMMEDIATE;")
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, not {VERSION}")
            database.execute("UPDATE invocations SET state = ? WHERE state = ?", (_WAITING, _RUNNING))
            self._turns = dict(
                database.execute("SELECT model, MAX(turn) FROM invocations WHERE state = ? GROUP BY model", (_WAITING,))
            )
            counts = dict(database.execute("SELECT state, COUNT(*) FROM invocations GROUP BY state"))
            self.waiting, self.running = counts.get(_WAITING, 0), counts.get(_RUNNING, 0)
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database

    async def add(self, queued: Queued) -> str:
        """Take on an invocation; once this returns it will be answered.

        :returns: its id, or that of the one that asked for the same before.
        :raises Overloaded: if the queue is full, or cannot be written.
        :raises BadMember: if its output is that of another invocation.
        """
        return cast("str", await self._write(lambda database: self._add(database, queued)))

    def _add(self, database: sqlite3.Connection, queued: Queued) -> str:
        fingerprint = queued.fingerprint()
        row = database.execute("SELECT fingerprint, id FROM invocations WHERE output = ?", (queued.output,)).fetchone()
        if row is not None:
            if row[0] != fingerprint:
                raise BadMember(
                    f"{queued.output!r} is the output of another invocation already; "
                    "choose another InferenceId, Filename or S3OutputPathExtension"
                )
            return cast("str", row[1])
        if self.waiting + self.running >= self._limit:
            raise Overloaded(
                f"{self._limit} asynchronous invocations are waiting already; "
                "try again later, or raise --async-queue-size"
            )
        turn = max(self._turns.get(queued.model, 0), self._turn) + 1
        database.execute(
            "INSERT INTO invocations (id, model, output, fingerprint, turn, due, state, content) "
            "VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            (queued.id, queued.model, queued.output, fingerprint, turn, _WAITING, msgspec.msgpack.encode(queued)),
        )
        self._turns[queued.model] = turn
        self.waiting += 1
        return queued.id

    async def take(self) -> Begun | None:
        """Begin the invocation whose turn it is; None if none is due."""
        return cast("Begun | None", await self._write(self._take))

    def _take(self, database: sqlite3.Connection) -> Begun | None:
        now = time.time()
        self._sweep(database, now)
        row = database.execute(
            "SELECT number, begun, content, turn, id, model, output FROM invocations WHERE state = ? AND due <= ? "
            "ORDER BY turn, number LIMIT 1",
            (_WAITING, now),
        ).fetchone()
        if row is None:
            return None
        number, begun, content, turn, *known = row
        database.execute("UPDATE invocations SET state = ?, begun = begun + 1 WHERE number = ?", (_RUNNING, number))
        self._turn = max(self._turn, turn)
        self.waiting -= 1
        self.running += 1
        try:
            return Begun(number, msgspec.msgpack.decode(content, type=Queued), begun)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            return Begun(number, _known(*known), begun, damage=str(error))

    async def postpone(self, begun: Begun, seconds: float) -> None:
        """Let an invocation wait again, for some seconds at least."""

        def write(database: sqlite3.Connection) -> None:
            database.execute(
                "UPDATE invocations SET state = ?, due = ? WHERE number = ?",
                (_WAITING, time.time() + seconds, begun.number),
            )
            self.running -= 1
            self.waiting += 1

        await self._write(write)

    async def end(self, begun: Begun, *, remember: bool) -> None:
        """Forget an invocation, whose answer is in S3.

        :param remember: whether one that asks for the same soon is taken for the same.
        """

        def write(database: sqlite3.Connection) -> None:
            if remember:
                database.execute(
                    "UPDATE invocations SET state = ?, due = ?, content = x'' WHERE number = ?",
                    (_ENDED, time.time(), begun.number),
                )
            else:
                database.execute("DELETE FROM invocations WHERE number = ?", (begun.number,))
            self.running -= 1

        await self._write(write)

    def _sweep(self, database: sqlite3.Connection, now: float) -> None:
        """Delete what ended long ago; forget the turns of models that no invocation waits for."""
        if now - self._swept < SWEEP:
            return
        self._swept = now
        database.execute("DELETE FROM invocations WHERE state = ? AND due < ?", (_ENDED, now - REMEMBERED))
        self._turns = {model: turn for model, turn in self._turns.items() if turn > self._turn}

    async def close(self) -> None:
        """Write what is to be written, and let another server have the queue."""
        if self._task is not None:
            await self._task
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    # -- Transactions --

    def _write(self, write: Write) -> asyncio.Future[Any]:
        """Have something written in the next transaction."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writes.append((write, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._writes:
            writes, self._writes = self._writes, []
            results: list[Any]
            try:
                results = await loop.run_in_executor(self._thread, self._commit, [write for write, _ in writes])
            except Exception as error:
                if not self._failing:
                    logger.exception("the queue of asynchronous invocations cannot be written; it is tried on")
                self._failing = True
                text = f"the queue of asynchronous invocations cannot be written: {error}; see to its disk"
                results = [Overloaded(text) for _ in writes]
            else:
                if self._failing:
                    logger.info("the queue of asynchronous invocations can be written again")
                self._failing = False
            for (_, future), result in zip(writes, results, strict=True):
                if future.done():  # nobody waits for it any more
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def _commit(self, writes: list[Write]) -> list[Any]:
        """Return what each of some writes returns or refuses with; if anything else is raised, nothing is written."""
        database = self._database
        before = self.waiting, self.running
        results: list[Any] = []
        try:
            database.execute("BEGIN IMMEDIATE")
            for write in writes:
                try:
                    results.append(write(database))
                except ManyModelsError as error:
                    results.append(error)
            database.execute("COMMIT")
        except BaseException:
            self.waiting, self.running = before
            raise
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return results


def _known(id_: str, model: str, output: str) -> Queued:
    """Return what is known of an invocation whose content cannot be read.

    Its failure goes beside its output; where its endpoint has an S3FailurePath, nothing says so any more.
    """
    failure = f"{output.rpartition('/')[0]}/{id_}-error.out"
    return Queued(id_, "", None, model, {}, None, b"", output, failure, expires=0.0, timeout=0.0)
