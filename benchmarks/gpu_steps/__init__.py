"""The steps of benchmarks/gpu.py, one module each, and what runs and reports them."""
