"""Assets in the browser: `view.py` shows one, `train.py --view` shows it as it forms. Served to this machine only."""
