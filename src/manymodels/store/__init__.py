"""Which artifacts exist, and how they get onto the local disk."""

from .addresses import connect
from .base import Found, Limits, Store
from .cache import DiskCache
from .local import LocalStore
from .mounts import Mounts
from .names import check_target_model
from .objects import Objects
from .pack import pack
from .remote import RemoteStore
from .signatures import read_keys, verify
from .trusted import TrustedStore
from .unpack import unpack

__all__ = [
    "DiskCache",
    "Found",
    "Limits",
    "LocalStore",
    "Mounts",
    "Objects",
    "RemoteStore",
    "Store",
    "TrustedStore",
    "check_target_model",
    "connect",
    "pack",
    "read_keys",
    "unpack",
    "verify",
]
