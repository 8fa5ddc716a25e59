"""Skeletons of bodies: joints, the surface that they bend, and their keypoints as OpenPose has them."""
