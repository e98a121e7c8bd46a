"""What runs at a hospital: joining a run, training, adding up shares, opening sums."""
