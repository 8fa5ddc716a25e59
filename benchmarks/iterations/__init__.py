"""Parts of the iteration's benchmark, and of the memory table."""
