"""The network: `build_model` from settings, `load_model` from a checkpoint."""

from model.matcher import DEFAULT_SETTINGS, CrossViewMatcher, MatchResult, build_model, complete_settings
from model.published import CheckpointError, load_model

__all__ = [
    "DEFAULT_SETTINGS",
    "CheckpointError",
    "CrossViewMatcher",
    "MatchResult",
    "build_model",
    "complete_settings",
    "load_model",
]
