"""Where the artifacts of a model are, and whether its container could be played by this server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from .. import sagemaker
from ..context import ModelSettings
from ..endpoint import Outputs, Topics
from ..errors import ManyModelsError
from ..settings import Settings, load, variables
from ..store.names import path_fault
from .failure import Failure

logger = logging.getLogger(__name__)

#: Variables that SageMaker's SDK sets whatever is deployed, and that mean nothing here.
_USUAL = ("SAGEMAKER_REGION", "SAGEMAKER_CONTAINER_LOG_LEVEL", "SAGEMAKER_MULTI_MODEL")
#: The settings, by the variables that a container of this server takes them from.
_SETTINGS = {name: field for field in Settings.model_fields for name in variables(field) if name not in _USUAL}
#: Those on which answers depend.
_ANSWERS = ModelSettings.__struct_fields__
#: Where AWS's containers have the code of an artifact: what the server looks into anyway.
_OWN_CODE = "/opt/ml/model/code"


class Location(NamedTuple):
    """A model store, and if there is only one the artifact in it."""

    store: str | Path
    artifact: str | None


def container_of(model: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a model's only container.

    :raises Failure: if it has several, or none.
    """
    containers = model.get("Containers") or []
    primary = model.get("PrimaryContainer")
    if (primary is not None) + len(containers) != 1:
        raise Failure(
            "Specify a model by PrimaryContainer, or by one of Containers: inference pipelines are not emulated."
        )
    container: dict[str, Any] = primary if primary is not None else containers[0]
    return container


def locate(container: dict[str, Any], root: str | Path | None) -> Location:
    """Return where a container's models are.

    :param root: a store whose folders are the buckets; None: S3 itself.
    :raises Failure: if that is not to be told.
    """
    multi = container.get("Mode") == "MultiModel"
    source = container.get("ModelDataSource")
    if "ModelPackageName" in container or "AdditionalModelDataSources" in container:
        raise Failure("Model packages and additional model data sources are not emulated; give Image and ModelDataUrl.")
    if not container.get("Image"):
        raise Failure("Image is missing: it is not pulled here, and SageMaker needs it.")
    if source is not None and (multi or container.get("ModelDataUrl") is not None):
        raise Failure("ModelDataSource goes neither with Mode MultiModel nor with ModelDataUrl.")
    url = source["S3DataSource"]["S3Uri"] if source and "S3DataSource" in source else container.get("ModelDataUrl")
    if not url:
        raise Failure("ModelDataUrl is missing: models that are part of an image cannot be served, it is not pulled.")
    bucket, key = _split(url)
    if multi:
        return Location(_below(root, bucket, key), None)
    if not key or (source is None and not key.endswith(".tar.gz")):
        raise Failure(f"ModelDataUrl {url} has to be that of one .tar.gz; set Mode to MultiModel for a prefix.")
    folder, _, name = key.rpartition("/")
    return Location(_below(root, bucket, folder), name)


def _split(url: str) -> tuple[str, str]:
    """Return the bucket and the key of an address in S3."""
    scheme, _, rest = sagemaker.s3_address(url).partition("://")
    if scheme != "s3" or path_fault(rest.rstrip("/")) is not None:
        raise Failure(f"{url} is no address in S3, such as s3://bucket/prefix/.")
    bucket, _, key = rest.rstrip("/").partition("/")
    return bucket, key


def _below(root: str | Path | None, bucket: str, key: str) -> str | Path:
    if isinstance(root, Path):
        return root / bucket / key
    top = "s3:/" if root is None else root.rstrip("/")
    return f"{top}/{bucket}/{key}".rstrip("/")


def outputs_of(asynchronous: dict[str, Any] | None) -> Outputs | None:
    """Return where an AsyncInferenceConfig has answers and errors written; None if there is none.

    :raises Failure: if it does not say so by addresses in S3.
    """
    if asynchronous is None:
        return None
    output = asynchronous["OutputConfig"]
    if "S3OutputPath" not in output:
        raise Failure("S3OutputPath is missing: by default AWS writes to a bucket of its own making.")
    answers = _address(output["S3OutputPath"])
    errors = _address(output["S3FailurePath"]) if "S3FailurePath" in output else answers
    return Outputs(answers, errors, _topics(output.get("NotificationConfig", {})))


def _topics(notification: dict[str, Any]) -> Topics | None:
    success, error = notification.get("SuccessTopic") or None, notification.get("ErrorTopic") or None
    if success is None and error is None:
        return None
    included = notification.get("IncludeInferenceResponseIn", [])
    return Topics(
        success,
        error,
        success_included="SUCCESS_NOTIFICATION_TOPIC" in included,
        error_included="ERROR_NOTIFICATION_TOPIC" in included,
    )


def _address(url: str) -> str:
    bucket, key = _split(url)
    return f"s3://{bucket}/{key}".rstrip("/")


def check_environment(name: str, environment: dict[str, str], settings: Settings) -> None:
    """Refuse variables by which a model would answer otherwise than here; log those that it will not see.

    :param name: the model's, for the log.
    :raises Failure: if a variable is another than the server was started with.
    """
    unseen = []
    for variable, value in sorted(environment.items()):
        if variable == "SAGEMAKER_SUBMIT_DIRECTORY":
            if value not in (_OWN_CODE, settings.submit_directory):
                raise Failure(f"Start the server with {variable}, a folder or .tar.gz on its disk, not {value}.")
        elif variable in _SETTINGS:
            _check_setting(name, variable, value, settings)
        elif variable in sagemaker.UNSUPPORTED:
            logger.warning("%s is not supported: %s", variable, sagemaker.UNSUPPORTED[variable], extra={"model": name})
        elif variable not in _USUAL:
            unseen.append(variable)
    if unseen:
        logger.warning("variables that its models will not see: %s", ", ".join(unseen), extra={"model": name})


def _check_setting(name: str, variable: str, value: str, settings: Settings) -> None:
    """Compare a setting, which is the same for all models here, with that of a container."""
    setting = _SETTINGS[variable]
    own = getattr(settings, setting)
    try:
        wanted = getattr(load(**{setting: value}), setting)
    except ManyModelsError as error:
        raise Failure(f"{variable}={value} is no value for this setting of the server: {error}") from error
    if setting == "program":
        own, wanted = own.removesuffix(".py"), wanted.removesuffix(".py")
    if wanted == own:
        return
    if setting in _ANSWERS:
        raise Failure(
            f"This server runs with {variable}={getattr(settings, setting)}; start it with {variable}={value}."
        )
    logger.warning("%s=%s is a setting of the server, which has %s", variable, value, own, extra={"model": name})
