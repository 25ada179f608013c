"""Frozen CLIP-like models behind one protocol: by name (`load_backbone`), or from weights at hand.

`__init__.pyi` says what is here and where it is from; each is imported when it is first asked for, since torch alone takes
two seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
