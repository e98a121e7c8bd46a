"""Federated learning of skin-lesion classifiers under secret sharing and homomorphic encryption."""

__version__ = "0.1.0"
