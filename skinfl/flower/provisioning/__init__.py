"""What is made before anything runs: keys, certificates, folders, and how they are read."""
