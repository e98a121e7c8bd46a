"""Federated training: what a hospital computes, how updates are combined, and the rounds."""
