"""multi-model-server as the model server: the only package that imports ``mms`` or ``sagemaker_inference``."""

__version__ = "0.1.0"
