"""Assets for other programs: files of Gaussians, and textured meshes."""
