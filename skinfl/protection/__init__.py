"""Protections: how updates of many hospitals become their sum without anyone seeing a single one."""

from skinfl.protection import he, smpc  # noqa: F401 - they register themselves
from skinfl.protection.build import build_protection
from skinfl.protection.registry import PROTECTIONS

PROTECTIONS.register("plaintext", "none: the baseline", "skinfl.protection.plaintext:Plaintext")

__all__ = ["PROTECTIONS", "build_protection"]
