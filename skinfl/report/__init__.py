"""What a run leaves to look at: comparison table, plots and HTML, from plain dicts to files."""
