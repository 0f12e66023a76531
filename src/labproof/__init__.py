"""labproof: acceptance tests that prove, layer by layer, that a GPU reaches a pod."""

__version__ = "0.1.0"
