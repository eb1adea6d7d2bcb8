"""Model stores in clouds, as the tests have them: moto for S3, Azurite for Azure, an emulator for Google's."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3
from serving import free_port, until

#: Where the contract's artifacts are: "" for a folder, or a scheme; `make test-stores` sets it.
KIND = os.environ.get("MANYMODELS_TEST_STORE", "")
ACCOUNT = "devstoreaccount1"
#: Azurite's own, which is public.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Cloud:
    """A bucket or container called ``models``, with what puts into it."""

    scheme: str
    env: dict[str, str]
    put: Callable[[str, bytes], Any]
    delete: Callable[[str], Any]

    def copy(self, folder: Path) -> str:
        """Put all files of a folder; return the address of where they are."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(path.relative_to(folder).as_posix(), path.read_bytes())
        return f"{self.scheme}://models"


def environment(scheme: str, port: int) -> dict[str, str]:
    """Return what a server, or this process, needs to reach an emulator."""
    if scheme == "gs":
        return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "NO_GCE_CHECK": "true"}
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
    return {"AZURE_STORAGE_CONNECTION_STRING": connection}


@contextlib.contextmanager
def running(scheme: str, folder: Path) -> Iterator[Cloud]:
    """Run the emulator of a cloud; the test is skipped where it is not installed.

    :param folder: for what it keeps.
    """
    with {"s3": _s3, "az": _azure, "gs": _google}[scheme](folder) as cloud:
        yield cloud


@contextlib.contextmanager
def _s3(folder: Path) -> Iterator[Cloud]:
    with s3.running() as bucket:
        yield Cloud("s3", dict(bucket.env), bucket.put, bucket.delete)


@contextlib.contextmanager
def _azure(folder: Path) -> Iterator[Cloud]:
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite-blob is not on the PATH: npm install azurite")
    from azure.storage.blob import BlobServiceClient

    port = free_port()
    command = [azurite, "--silent", "--skipApiVersionCheck", "--blobPort", str(port), "--location", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), "Azurite listens")
        env = environment("az", port)
        service = BlobServiceClient.from_connection_string(env["AZURE_STORAGE_CONNECTION_STRING"])
        container = service.create_container("models")

        def put(name: str, body: bytes) -> None:
            container.upload_blob(name, body, overwrite=True)

        yield Cloud("az", env, put, container.delete_blob)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _google(folder: Path) -> Iterator[Cloud]:
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="models")
    server.start()
    try:
        env = environment("gs", port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", env["STORAGE_EMULATOR_HOST"])
            bucket = storage.Client(project="any", credentials=AnonymousCredentials()).bucket("models")
        yield Cloud(
            "gs",
            env,
            lambda name, body: bucket.blob(name).upload_from_string(body),
            lambda name: bucket.blob(name).delete(),
        )
    finally:
        server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
