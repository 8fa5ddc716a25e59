"""Gaussians as a closed triangle mesh with a texture: seen from all around, fused, cleaned, unwrapped, painted."""
