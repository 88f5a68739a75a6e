"""An HTTP service with a page: structures in, bounds out, for those who do not install the model.

Names are imported on first use, so that settings and keys need no web framework.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
