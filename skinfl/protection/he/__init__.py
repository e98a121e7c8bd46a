"""Homomorphic encryption through TenSEAL: CKKS and BFV."""
