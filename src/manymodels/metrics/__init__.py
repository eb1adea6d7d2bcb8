"""What a server counts, for Prometheus and for CloudWatch."""

from .record import Metrics
from .state import DiskCacheState, ServerState

__all__ = ["DiskCacheState", "Metrics", "ServerState"]
