"""Numbers for finished runs: views of their assets, and the scorers that look at them."""
