"""SageMaker's control plane for a local try: models, endpoint configurations and endpoints, made by boto3."""

from .control import ControlPlane
from .failure import BadJson, Failure
from .shapes import Shapes

__all__ = ["BadJson", "ControlPlane", "Failure", "Shapes"]
