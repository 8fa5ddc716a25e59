"""Files of Gaussians: one module per format, and what they share."""
