"""Real data from packages that are already on disk: nothing is downloaded at run time."""

from tfbig.data.breast_cancer import Split, breast_cancer

__all__ = ["Split", "breast_cancer"]
