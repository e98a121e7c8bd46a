"""What a trained network is for: photographs, other data sets, other programs."""
