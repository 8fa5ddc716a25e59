"""What `train.py` goes through: a run's state, one iteration of it, and when it is kept."""
