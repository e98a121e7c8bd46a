"""Kept beside pyproject.toml so that the pip of Python 3.8 environments can install in editable mode."""

from setuptools import setup

setup()
