"""What an image name means here: an imported root filesystem, a built-in program, or the host's own files."""
