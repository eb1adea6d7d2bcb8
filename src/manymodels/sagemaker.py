"""The SageMaker contract as names: headers, environment variables, paths.

Sources: the AWS developer guide (bring your own container, multi-model endpoints) and the
botocore service model ``sagemaker-runtime/2017-05-13``.
"""

from __future__ import annotations

import re
from typing import Final

# Request headers, in lower case, as requests are read.
TARGET_MODEL: Final = "x-amzn-sagemaker-target-model"
CUSTOM_ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"
SESSION_ID: Final = "x-amzn-sagemaker-session-id"
INFERENCE_ID: Final = "x-amzn-sagemaker-inference-id"
TARGET_VARIANT: Final = "x-amzn-sagemaker-target-variant"
TARGET_CONTAINER: Final = "x-amzn-sagemaker-target-container-hostname"
INFERENCE_COMPONENT: Final = "x-amzn-sagemaker-inference-component"
ENABLE_EXPLANATIONS: Final = "x-amzn-sagemaker-enable-explanations"
PREFIX_AWARE_ID: Final = "x-amzn-sagemaker-prefix-aware-id"
#: Accept, where Accept itself is about the stream that the answer comes in.
STREAM_ACCEPT: Final = "x-amzn-sagemaker-accept"

# Request headers of InvokeEndpointAsync.
ASYNC_CONTENT_TYPE: Final = "x-amzn-sagemaker-content-type"
INPUT_LOCATION: Final = "x-amzn-sagemaker-inputlocation"
OUTPUT_EXTENSION: Final = "x-amzn-sagemaker-s3outputpathextension"
FILENAME: Final = "x-amzn-sagemaker-filename"
REQUEST_TTL: Final = "x-amzn-sagemaker-requestttlseconds"
ASYNC_TIMEOUT: Final = "x-amzn-sagemaker-invocationtimeoutseconds"

# Reply headers.
OUTPUT_LOCATION: Final = "X-Amzn-SageMaker-OutputLocation"
FAILURE_LOCATION: Final = "X-Amzn-SageMaker-FailureLocation"
REQUEST_ID: Final = "x-amzn-RequestId"
ERROR_TYPE: Final = "x-amzn-ErrorType"
INVOKED_VARIANT: Final = "x-Amzn-Invoked-Production-Variant"
#: The model's Content-Type, where the answer comes in a stream of events.
STREAM_CONTENT_TYPE: Final = "X-Amzn-SageMaker-Content-Type"
NEW_SESSION_ID: Final = "X-Amzn-SageMaker-New-Session-Id"
CLOSED_SESSION_ID: Final = "X-Amzn-SageMaker-Closed-Session-Id"

#: The SessionId that asks for a session.
NEW_SESSION: Final = "NEW_SESSION"
#: Longest TargetModel, in characters (shape TargetModelHeader).
TARGET_MODEL_LENGTH: Final = 1024
#: Largest body either way, in bytes (shape BodyBlob): 6 MiB.
BODY_LIMIT: Final = 6291456
#: Seconds a container has for an answer.
INVOCATION_TIMEOUT: Final = 60.0
#: Seconds SageMaker waits for a model to load, in all.
LOAD_TIMEOUT: Final = 360.0
#: The variant name that AWS's own examples use.
VARIANT: Final = "AllTraffic"

#: SageMaker's folder in a container; SAGEMAKER_BASE_DIR moves it.
BASE_DIR: Final = "/opt/ml"
#: Where a single model's files are, below it.
MODEL_DIR: Final = "model"
#: Where a multi-model container's models are; ours is a model store there when SageMaker does not say what to load.
MODELS_DIR: Final = "models"

#: Variables that AWS's scikit-learn and XGBoost containers read and this one does not, each with what to do instead.
UNSUPPORTED: Final = {
    "SAGEMAKER_INFERENCE_OUTPUT": 'set "output" in the settings of the artifact\'s manymodels.json',
    "SAGEMAKER_INFERENCE_ENSEMBLE": "pack one model file into an artifact",
    "SAGEMAKER_MAX_PAYLOAD_IN_MB": "set MANYMODELS_MAX_BODY, in bytes or as 100MiB",
    "SAGEMAKER_MAX_REQUEST_SIZE": "set MANYMODELS_MAX_BODY",
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": "set SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS, in seconds",
    "SAGEMAKER_NUM_MODEL_WORKERS": "set SAGEMAKER_MODEL_SERVER_WORKERS with the backend mms",
    "SAGEMAKER_STARTUP_TIMEOUT": "nothing waits that long",
    "SAGEMAKER_MAX_HEAP_SIZE": "set SAGEMAKER_MODEL_SERVER_VMARGS=-Xmx...",
    "SAGEMAKER_MAX_DIRECT_MEMORY_SIZE": "set SAGEMAKER_MODEL_SERVER_VMARGS=-XX:MaxDirectMemorySize=...",
    "SAGEMAKER_MAX_RESPONSE_SIZE": "replies have no limit",
    "SAGEMAKER_RESPONSE_TIMEOUT": "set SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS",
    "SAGEMAKER_MODEL_STORE": "models are loaded from where POST /models says, or name a store: serve STORE",
    "OMP_NUM_THREADS": "set MANYMODELS_THREADS",
    "CA_REPOSITORY_ARN": "no packages are installed at start; build them into the image",
}

#: Addresses of S3 by HTTPS, with the bucket in the path or in the host.
_HTTPS: Final = re.compile(r"https://(?:(?P<host>[^/]+)\.)?s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?/(?P<path>.*)")


def s3_address(url: str) -> str:
    """Return an ``https://`` address of S3 as ``s3://BUCKET/KEY``, and any other as it is."""
    if (match := _HTTPS.fullmatch(url)) is None:
        return url
    return f"s3://{match['host']}/{match['path']}" if match["host"] else f"s3://{match['path']}"
