"""The whole path for one model in one resumable call: download, features, fit, audit."""

from mace_bounds.pipeline.config import BuildConfig
from mace_bounds.pipeline.plan import Plan, plan
from mace_bounds.pipeline.run import BuildResult, build

__all__ = ["BuildConfig", "BuildResult", "Plan", "build", "plan"]
