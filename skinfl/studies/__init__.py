"""Studies over several runs: protections side by side, over seeds, and between the two baselines."""
