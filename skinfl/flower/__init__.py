"""Hospitals on machines of their own: the same training on Flower, over TLS.

``provision``, ``certificates``, ``folders`` and ``commands`` need no Flower; the rest needs the extra
``[flower]`` (Python 3.11 or newer).
"""
