"""Container logs: the CRI line format, the writer that rotates, the reader that tails and follows."""
