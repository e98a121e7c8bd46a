"""The version of this package, apart from the package itself, which exports what is built on everything."""

__version__ = "0.1.0"
