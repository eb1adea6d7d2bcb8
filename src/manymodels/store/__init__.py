"""Which artifacts exist, and how they get onto the local disk."""

from .base import Found, Limits, Store
from .cache import DiskCache
from .local import LocalStore
from .names import check_target_model
from .pack import pack
from .unpack import unpack

__all__ = ["DiskCache", "Found", "Limits", "LocalStore", "Store", "check_target_model", "pack", "unpack"]
