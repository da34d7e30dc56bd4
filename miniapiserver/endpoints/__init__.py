"""What the API server answers, one file per kind of endpoint."""
