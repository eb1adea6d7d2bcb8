"""Signs requests with the credentials that AWS's own tools would use. Not there without botocore."""

from __future__ import annotations

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from click import ClickException

#: The service, and the region where none is configured; the server takes any.
SERVICE, REGION = "sagemaker", "us-east-1"


def sign(request: httpx.Request) -> None:
    """Add a signature (Signature Version 4).

    :raises ClickException: if there are no credentials.
    """
    session = Session()
    try:
        credentials = session.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
        region = session.get_config_variable("region") or REGION
    except BotoCoreError as error:
        raise ClickException(f"the server wants requests to be signed: {error}") from error
    if frozen is None:
        raise ClickException(
            "the server wants requests to be signed, and there are no credentials for that; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    # What else there is may be changed on the way.
    headers = {
        name.lower().decode(): value.decode("utf-8", "replace")
        for name, value in request.headers.raw
        if name.lower() in (b"host", b"content-type") or name.lower().startswith(b"x-amz")
    }
    signed = AWSRequest(request.method, str(request.url), headers, data=request.content)
    SigV4Auth(frozen, SERVICE, region).add_auth(signed)
    for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token"):
        if name in signed.headers:
            request.headers[name] = signed.headers[name]
