"""What the front costs: our HTTP answering nothing, beside a whole server of ours with one model, in one run.

For each number of connections: answers per second, and the processor time that the process which speaks
HTTP takes for one of them. The second figure is the one to go by on a busy machine. Both take turns.

Run it as ``python -m benchmarks.front``, with ``--fronts N`` for the server with several front processes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import joblib
import psutil
import uvloop
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from benchmarks.load import Load, Plan, Question
from manymodels.http.listener import Listener
from manymodels.http.replies import Reply
from manymodels.http.request import Request
from manymodels.http.serve import bind

BODY = b"[[5.1, 3.5, 1.4, 0.2]]"
HEADERS = {"X-Amzn-SageMaker-Target-Model": "iris", "Content-Type": "application/json", "Content-Length": len(BODY)}
HEAD = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
REQUEST = f"POST /invocations HTTP/1.1\r\nHost: here\r\n{HEAD}\r\n".encode() + BODY
#: Seconds for a start on a busy machine.
PATIENCE = 120.0


async def constant() -> None:
    """Answer everything with the same, until the process is ended."""

    async def answer(_: Request) -> Reply:
        return Reply.of(200, b"[0]", "application/json")

    [sock] = bind("127.0.0.1", 0, 1)
    await Listener(answer, 1 << 20, 60.0).start(sock)
    sys.stdout.write(f"listening on http://127.0.0.1:{sock.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@contextmanager
def running(*command: str) -> Iterator[tuple[int, int]]:
    """Run a server; its process id and its port."""
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(line.split()[-1] for line in process.stdout if line.startswith("listening on"))
        port = int(url.rpartition(":")[2])
        end = time.monotonic() + PATIENCE
        headers = {name: str(value) for name, value in HEADERS.items()}
        while httpx.post(f"{url}/invocations", content=BODY, headers=headers).status_code != 200:
            assert time.monotonic() < end, "the server does not answer"
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def spent(pid: int) -> float:
    """Return the processor time of a process and of its front processes, in seconds."""
    owner = psutil.Process(pid)
    fronts = [child for child in owner.children() if "manymodels.http.front" in child.cmdline()]
    return sum(sum(process.cpu_times()[:2]) for process in (owner, *fronts))


def measure(pid: int, port: int, connections: int, seconds: float) -> tuple[float, float]:
    """Return answers per second, and microseconds of processor time for each."""
    before = spent(pid)
    outcome = Load(Plan(port, [Question(REQUEST, 0.0)], connections, seconds=seconds, warm=0.0, where=[0])).outcome()
    if outcome.failed or outcome.wrong or outcome.refused:
        raise SystemExit(outcome.first_problem)
    return outcome.rate, (spent(pid) - before) / outcome.good * 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constant", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--fronts", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    if options.constant:
        uvloop.run(constant())
        return
    with ExitStack() as stack:
        store = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (store / "iris").mkdir()
        joblib.dump(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), store / "iris" / "model.joblib")
        servers = {"answering nothing": stack.enter_context(running("benchmarks.front", "--constant"))}
        for fronts in options.fronts:
            command = ["manymodels", "serve", str(store), "--workers", "1", "--port", "0", "--fronts", str(fronts)]
            servers[f"one model, fronts {fronts}"] = stack.enter_context(running(*command))
        print("| connections | server | answers/s | ratio | us of processor time | ratio |\n|--:|---|--:|--:|--:|--:|")
        for connections in options.connections:
            cells: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, (pid, port) in servers.items():
                    cells[name].append(measure(pid, port, connections, options.seconds))
            first: tuple[float, float] | None = None
            for name, values in cells.items():
                rate, cost = (statistics.median(column) for column in zip(*values, strict=True))
                first = first or (rate, cost)
                ratios = f"{rate / first[0]:.2f} | {cost:.1f} | {cost / first[1]:.2f}"
                print(f"| {connections} | {name} | {rate:,.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
