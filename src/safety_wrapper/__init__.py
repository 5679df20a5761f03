"""safety-wrapper: the engine that stands between an AI agent and everything it can touch."""

__version__ = "0.1.0"
