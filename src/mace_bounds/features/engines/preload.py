"""What takes a worker process seconds to import; imported once by the server that worker processes are forked from."""

from mace_bounds._light import lighten_imports
from mace_bounds.backbones.mace import checkpoint as _mace

lighten_imports()
_mace.import_mace()
