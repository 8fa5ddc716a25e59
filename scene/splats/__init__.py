"""Files of Gaussians of other programs: a reader for each format, and the table that writers start from too."""
