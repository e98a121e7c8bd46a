"""What runs at the clinic: keys, encryption, asking a server, decryption."""
