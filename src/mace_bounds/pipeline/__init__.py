"""The whole path for one model, in one resumable call: download, features, fit, audit.

The room is also the verb: ``mace_bounds.build(out, source)`` is :func:`mace_bounds.build.build`.
"""

import sys
from types import ModuleType

from mace_bounds.build._plan import Plan, plan
from mace_bounds.build._question import DEFAULT_SOURCE, STAGES
from mace_bounds.build._run import BuildResult, build
from mace_bounds.build._stages import install_head

__all__ = ["DEFAULT_SOURCE", "STAGES", "BuildResult", "Plan", "build", "install_head", "plan"]


class _Verb(ModuleType):
    """A package and a function of one name: whoever asks for ``mace_bounds.build`` may call it."""

    __call__ = staticmethod(build)


sys.modules[__name__].__class__ = _Verb
