"""The network as a circuit on ciphertexts: what is evaluated, and under which parameters."""
