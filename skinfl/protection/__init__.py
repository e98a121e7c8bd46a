"""Protections: how updates of many hospitals become their sum without anyone seeing a single one."""

from skinfl.protection.build import build_protection

__all__ = ["build_protection"]
