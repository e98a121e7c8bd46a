"""What runs at the server: the HTTP application and the processes that evaluate."""
