"""Nearest neighbours of points in space."""
