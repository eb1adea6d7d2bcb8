"""What a server counts, for Prometheus and for CloudWatch."""

from .record import Metrics
from .state import ServerState

__all__ = ["Metrics", "ServerState"]
