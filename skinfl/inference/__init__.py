"""Diagnosis on encrypted images: the network as a circuit, its clients and its server."""
