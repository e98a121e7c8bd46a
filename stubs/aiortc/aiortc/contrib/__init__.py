"""Only the part that PySyft 0.2.9 imports."""
