"""Point-E: coloured point clouds from text or images."""
