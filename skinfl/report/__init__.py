"""What a run leaves to look at: metrics, comparison table, plots and HTML, from plain dicts to files."""
