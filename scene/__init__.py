"""The trained scene and its views: Gaussians, their optimizer and density control, cameras."""
