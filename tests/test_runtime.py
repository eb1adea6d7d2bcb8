"""The endpoint API by itself: every error that can be met is one that boto3 knows."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from serving import runtime_client

from manymodels.endpoint import Role
from manymodels.errors import BY_NAME, ManyModelsError
from manymodels.http.app import create_app
from manymodels.http.listener import Listener
from manymodels.settings import load


class Failing:
    """A role whose every invocation fails, with the error that TargetModel names, or with a fault of its own."""

    def route(self, endpoint: str, target_model: str, variant: str | None) -> tuple[str, str]:
        """Return the names as they are."""
        return target_model, "AllTraffic"

    def outputs(self, endpoint: str) -> None:
        """Say that the endpoint is not asynchronous."""

    async def invoke(self, target_model: str, _: Any) -> None:
        """Fail."""
        raise BY_NAME[target_model]("the text of the error")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Any]:
    """A client of an application in front of a role that fails."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    role: Role = Failing()  # type: ignore[assignment]  # of a role, it has what is asked of it here
    sock = socket.create_server(("127.0.0.1", 0))

    async def start() -> Listener:
        listener = Listener(create_app(role, load()), 1 << 20, 10)
        await listener.start(sock)
        return listener

    listener = asyncio.run_coroutine_threadsafe(start(), loop).result()
    client = runtime_client(f"http://127.0.0.1:{sock.getsockname()[1]}")
    yield client
    client.close()
    asyncio.run_coroutine_threadsafe(listener.stop(1), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def modelled(runtime: Any) -> set[str]:
    """Return the errors that InvokeEndpoint may answer with."""
    operation = runtime.meta.service_model.operation_model("InvokeEndpoint")
    return {shape.name for shape in operation.error_shapes}


@pytest.mark.parametrize("cls", BY_NAME.values(), ids=BY_NAME)
def test_every_error_is_a_modelled_exception_with_its_members(runtime: Any, cls: type[ManyModelsError]) -> None:
    status, kind = cls.aws
    assert kind in modelled(runtime)
    with pytest.raises(getattr(runtime.exceptions, kind)) as caught:
        runtime.invoke_endpoint(EndpointName="e", TargetModel=cls.__name__, Body=b"{}")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["ResponseMetadata"]["RequestId"]
    assert "the text of the error" in response["Error"]["Message"]
    if kind == "ModelError":
        assert response["OriginalMessage"] == "the text of the error"
        assert response["OriginalStatusCode"] == (cls.status if cls.original_status is None else cls.original_status)
        assert response["LogStreamArn"].endswith("/aws/sagemaker/Endpoints/e")


def test_all_modelled_exceptions_are_met(runtime: Any) -> None:
    assert modelled(runtime) == {cls.aws[1] for cls in BY_NAME.values()}


def test_a_fault_of_the_server_is_an_internal_failure(runtime: Any) -> None:
    with pytest.raises(runtime.exceptions.InternalFailure) as caught:  # the role meets a KeyError
        runtime.invoke_endpoint(EndpointName="e", TargetModel="no error", Body=b"{}")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "no error" not in caught.value.response["Error"]["Message"]
