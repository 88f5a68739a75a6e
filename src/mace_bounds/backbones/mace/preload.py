"""What takes a worker process seconds to import; imported once by the server that worker processes are forked from."""

from mace_bounds.backbones.mace import checkpoint as _mace

_mace.import_mace()
