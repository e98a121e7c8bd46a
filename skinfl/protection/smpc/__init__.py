"""Secret sharing: additive in a ring, and Shamir's with a threshold."""
