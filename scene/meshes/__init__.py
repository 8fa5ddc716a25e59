"""Readers of meshes, and their surfaces as coloured points."""
