"""What is trained and where it is seen from: Gaussians, their optimizer and density control, cameras."""
