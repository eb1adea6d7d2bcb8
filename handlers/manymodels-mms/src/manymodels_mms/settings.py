"""The settings of this package, beside those of the server."""

from __future__ import annotations

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from manymodels.errors import SettingsError

PREFIX = "MANYMODELS_MMS_"


class MmsSettings(BaseSettings):
    """What only multi-model-server needs to be told; read from the environment."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, case_sensitive=True)

    workers_per_model: int = Field(
        1,
        ge=1,
        le=64,
        validation_alias=AliasChoices(PREFIX + "WORKERS_PER_MODEL", "SAGEMAKER_MODEL_SERVER_WORKERS"),
        description="Processes of each model; each holds a copy of it.",
    )
    vmargs: str = Field(
        "-Xms16m -Xmx512m -Xss256k -XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        validation_alias=AliasChoices(PREFIX + "VMARGS", "SAGEMAKER_MODEL_SERVER_VMARGS"),
        description="Options of the Java virtual machine; the default is small: it only passes requests on.",
    )


def load() -> MmsSettings:
    """Return the settings.

    :raises SettingsError: naming the variable and its value.
    """
    try:
        return MmsSettings()  # type: ignore[call-arg]  # from the environment
    except ValidationError as error:
        problems = [f"{item['loc'][0]} is {item['input']!r}: {item['msg'].lower()}" for item in error.errors()]
        raise SettingsError("; ".join(problems)) from error
