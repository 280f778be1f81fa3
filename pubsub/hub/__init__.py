"""The hub server: owns topics, appends batches to their ledgers, pushes them to subscribers."""

from pubsub.hub.config import HubConfig
from pubsub.hub.server import serve

__all__ = ["HubConfig", "serve"]
