"""Whether the plugin answers the same through each model server, and over HTTP."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from importlib import metadata
from typing import Any

import httpx

from ..errors import ManyModelsError, SettingsError
from ..golden import Golden
from ..invocation import Answer
from ..sagemaker import BODY_LIMIT, TARGET_MODEL
from ..server import BACKENDS, ModelServer
from ..server.streams import collected
from ..settings import load
from ..store import pack
from .outcome import Failed
from .subject import SAMPLE, Subject, check_answer

#: Seconds for each step of a server.
_PATIENCE = 30.0
#: Rounds of all golden requests that are sent at the same time.
_ROUNDS = 5


def answers_on_every_backend(subject: Subject) -> str:
    """Each installed backend that works here loads the sample and answers, one by one and many at a time.

    In its own processes, as they are when they serve: what a test has imported is not there.
    """
    asked, left_out = [], []
    for entry in sorted(metadata.entry_points(group=BACKENDS), key=lambda entry: entry.name):
        try:
            asyncio.run(_ask(entry.load(), entry.name, subject))
            asked.append(entry.name)
        except SettingsError as error:
            left_out.append(f"{entry.name} cannot run here: {error}")
    if not asked:
        raise Failed("; ".join(left_out))
    return "; ".join([", ".join(asked), *left_out])


def answers_over_http(subject: Subject) -> str:
    """`manymodels serve` answers the golden requests, of the sample as a folder and as an archive."""
    store = subject.scratch()
    subject.copy().rename(store / "folder")
    pack(subject.path, store / "archive.tar.gz")
    command = [sys.executable, "-m", "manymodels", "serve", str(store), "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            _ask_over_http(process, subject)
        finally:
            process.terminate()
    if process.returncode:
        raise Failed(f"the server ended with {process.returncode}")
    return "as a folder and as an archive"


async def _ask(create: Any, backend: str, subject: Subject) -> None:
    server: ModelServer = create(load(backend=backend, workers=1, multi_model=True))
    try:
        await server.start([subject.name])
        await server.load(SAMPLE, subject.path, subject.binding)
        for number, golden in enumerate(subject.golden):
            check_answer(f"request {number} to {backend}", golden, await _invoke(server, golden))
        many = list(subject.golden) * _ROUNDS
        answers = await asyncio.gather(*(_invoke(server, golden) for golden in many))
        for golden, answer in zip(many, answers, strict=True):
            check_answer(f"one of {len(many)} requests to {backend}", golden, answer)
        await server.unload(SAMPLE)
    except SettingsError:
        raise
    except ManyModelsError as error:
        raise Failed(f"{backend} answers with {type(error).__name__}: {error}") from error
    finally:
        await server.stop()


async def _invoke(server: ModelServer, golden: Golden) -> Answer | ManyModelsError:
    try:
        return await collected(await server.invoke(SAMPLE, golden.invocation(), _PATIENCE), BODY_LIMIT)
    except ManyModelsError as error:
        return error


def _ask_over_http(process: subprocess.Popen[str], subject: Subject) -> None:
    assert process.stdout is not None
    found = (re.match(r"listening on (\S+)", line) for line in process.stdout)
    address = next((match[1] for match in found if match), None)
    if address is None:
        raise Failed("the server does not start")
    # A proxy of the environment is for the internet.
    with httpx.Client(base_url=address, timeout=_PATIENCE, trust_env=False) as client:
        for name in ("folder", "archive.tar.gz"):
            for golden in subject.golden:
                reply = client.post(
                    "/invocations",
                    content=golden.body,
                    headers={TARGET_MODEL: name, "Content-Type": golden.content_type, "Accept": golden.accept},
                )
                what = f"a request ({golden.content_type}) to the {name.partition('.')[0]} over HTTP"
                answer = Answer(reply.content, reply.headers.get("content-type", ""), reply.status_code)
                check_answer(what, golden, answer)
