"""A whole federation on one machine: its processes, its data folders, its simulation."""
