"""Honest error bounds for the energies of interatomic potentials.

The verbs are those of the command line: :func:`score`, :func:`fit`, :func:`audit`, :func:`compare`, :func:`plot`,
:func:`build`; :class:`BoundsPredictor` is a model and its head, loaded once. The folders below are floors: each
imports only from those beneath it (``docs/dev/house.md``). Names are imported on first use, so
``import mace_bounds`` costs nothing; ``__init__.pyi`` is the one list of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
