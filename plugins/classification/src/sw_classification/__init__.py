"""Command gating: a classifier plugin for safety-wrapper."""

from sw_classification.plugin import Classifier, plugin

__all__ = ["Classifier", "plugin"]
