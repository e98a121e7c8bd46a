"""The licence, which pyproject.toml cannot name for old and new setuptools alike.

Python 3.8's pip needs this file, too, to install in editable mode.
"""

from setuptools import setup

setup(license="MIT")
