"""What runs at the coordinator: gathering hospitals, asking them, keeping the run."""
