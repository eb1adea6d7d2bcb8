"""A plugin whose models do what they are told: wait, die, print, take memory.

What an artifact's ``model.toy`` says is done while loading; what a request's JSON says, while predicting.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manymodels import Accelerated, Artifact, Context, LeftToOriginal, hookimpl

LEAKED: list[bytes] = []


class ToyBatch:
    """Joins all but what asks to be ``alone``."""

    def join(self, data: Sequence[Any]) -> tuple[Any, list[int]] | None:
        if any("alone" in item for item in data):
            return None
        return list(data), [1] * len(data)

    def split(self, prediction: Any, counts: list[int]) -> list[Any]:
        return list(prediction)


def act(orders: dict[str, Any]) -> None:
    """Do what the orders say."""
    if "print" in orders:
        line = "x" * orders.get("width", 99)
        for _ in range(orders["print"]):
            print(line)
    if "say" in orders:
        print(orders["say"], flush=True)
    if "log" in orders:
        logging.getLogger("toy.script").warning(orders["log"])
    if "wait" in orders:
        Path(f"{orders['wait']}.began").touch()
        while not Path(orders["wait"]).exists():
            time.sleep(0.002)
    if "sleep" in orders:
        time.sleep(orders["sleep"])
    if "leak" in orders:
        LEAKED.append(b"x" * orders["leak"])
    if "hang" in orders:
        ctypes.PyDLL(None).sleep(orders["hang"])  # in C, and without letting go of the interpreter
    if "garbage" in orders:
        _write_to_sockets(bytes([255]) * orders["garbage"])
    if "kill" in orders:
        os.kill(os.getpid(), signal.Signals[orders["kill"]])
    if "exit" in orders:
        os._exit(orders["exit"])
    if orders.get("error"):
        raise RuntimeError(orders["error"])
    if "allocate" in orders:
        bytearray(orders["allocate"])


def _write_to_sockets(data: bytes) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, data)


@hookimpl
def claim(artifact: Artifact) -> str | None:
    return "toy" if artifact.match("*.toy") else None


@hookimpl
def load(artifact: Artifact, context: Context) -> dict[str, Any]:
    orders: dict[str, Any] = json.loads((artifact.path / "model.toy").read_text())
    if "kept" in orders:
        orders["held"] = bytearray(os.urandom(1)) * orders["kept"]
    if "note" in orders:
        context.note(orders["note"])
    if "counter" in orders:
        with Path(orders["counter"]).open("a") as file:
            file.write("load\n")
    act(orders)
    return orders


@hookimpl
def input_fn(body: bytes) -> Any:
    return json.loads(body)


@hookimpl
def accelerate(model: dict[str, Any], context: Context) -> Accelerated | None:
    orders = model.get("accelerate")
    if orders is None:
        return None
    act(orders)
    table = bytearray(orders.get("table", 0))
    quick = {name: value for name, value in model.items() if name != "slow"}

    def predict(data: Any) -> Any:
        if isinstance(data, dict) and "broken" in data:
            raise RuntimeError("broken")
        if isinstance(data, dict) and "left" in data:
            raise LeftToOriginal
        act(orders.get("then", {}))
        return predict_fn(data, quick, context) if table is not None else None

    return Accelerated("quick", predict, [{"tag": "probe"}, {"tag": "other"}])


@hookimpl
def predict_fn(data: Any, model: dict[str, Any], context: Context) -> Any:
    joined = data if isinstance(data, list) else [data]
    time.sleep(model.get("slow", 0))
    for orders in joined:
        act(orders)
    answer = {"pid": os.getpid(), "joined": len(joined), "model": context.target_model, "version": model.get("version")}
    answers = [{**answer, "tag": orders.get("tag")} for orders in joined]
    return answers if isinstance(data, list) else answers[0]


@hookimpl
def output_fn(prediction: Any, accept: str) -> tuple[str, str]:
    return json.dumps(prediction), "application/json"


@hookimpl
def batch(model: dict[str, Any]) -> ToyBatch:
    return ToyBatch()


@hookimpl
def unload(model: dict[str, Any]) -> None:
    if "counter" in model:
        with Path(model["counter"]).open("a") as file:
            file.write("unload\n")
