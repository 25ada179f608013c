"""Images, labels and data sets: from what lies on a disk to features and class indices.

`__init__.pyi` says what is here and where it is from; each is imported when it is first asked for: finding images and
looking at the cache must not wait for torch, which only decoding and encoding need.

Notation: N images, V views, D the backbone's embedding dimension.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
