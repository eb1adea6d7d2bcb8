"""What SNS is told when an invocation has ended whose endpoint names topics.

The messages are SageMaker's, as its documentation and messages that its users show have them; `responseBody` is as
programs of theirs read it.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from .. import sagemaker
from .queue import Queued
from .runner import Outcome

logger = logging.getLogger(__name__)

#: Most bytes of an answer that a message brings along: more, and they would not fit into one.
INCLUDED = 128 << 10
#: SNS has seconds, and two more tries: neither an answer nor the end of the server is to wait for it long.
_CONFIG = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})


class Notices:
    """Tells SNS; its credentials and endpoint are found as botocore finds them, and the region is the topic's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4, "notices")

    async def tell(self, queued: Queued, outcome: Outcome) -> None:
        """Publish what an invocation came to, if there is a topic for it; what cannot be published is logged."""
        topics = queued.topics
        topic = None if topics is None else topics.success if outcome.succeeded else topics.error
        if topics is None or topic is None:
            return
        included = topics.success_included if outcome.succeeded else topics.error_included
        region = topic.split(":")[3]
        text = msgspec.json.encode(message(queued, outcome, region, included=included)).decode()
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, _publish, region, topic, text)
        except (BotoCoreError, ClientError, ValueError) as error:  # the last of a topic without a region
            logger.error("%s is not told: %s", topic, error, extra={"model": queued.model})


def _publish(region: str, topic: str, text: str) -> None:
    _client(region).publish(TopicArn=topic, Message=text)


@functools.cache
def _client(region: str) -> Any:
    return Session().create_client("sns", region_name=region, config=_CONFIG)


def message(queued: Queued, outcome: Outcome, region: str, *, included: bool) -> dict[str, Any]:
    """Return what SNS is told.

    :param included: whether the answer is to be part of it, unless it is too large.
    """
    asked = {
        "accept": queued.headers.get("accept"),
        "contentType": queued.headers.get("content-type"),
        "customAttributes": queued.headers.get(sagemaker.CUSTOM_ATTRIBUTES),
        "endpointName": queued.endpoint,
        "inputLocation": queued.input,
    }
    content: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": _time(datetime.now(timezone.utc)),
        "receivedTime": _time(datetime.fromtimestamp(queued.received, timezone.utc)),
        "invocationStatus": "Completed" if outcome.succeeded else "Failed",
    }
    if not outcome.succeeded:
        reason = msgspec.json.decode(outcome.body)["Message"] if outcome.body else f"see {queued.failure}"
        content["failureReason"] = f"ClientError: {reason}"
    content["requestParameters"] = {name: value for name, value in asked.items() if value is not None}
    if outcome.succeeded:
        content["responseParameters"] = {"contentType": outcome.content_type, "outputLocation": queued.output}
    if included and outcome.body and len(outcome.body) <= INCLUDED:
        content["responseBody"] = (
            {"content": base64.b64encode(outcome.body).decode(), "encoding": "BASE64"}
            if outcome.succeeded
            else {"content": outcome.body.decode()}
        )
    return {
        **content,
        "inferenceId": queued.inference,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
