"""Parts of `train.py`: a run's state, one iteration of it, and when it is kept."""
