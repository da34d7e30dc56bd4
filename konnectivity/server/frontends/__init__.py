"""The fronts: how the API server asks. HTTP CONNECT and gRPC differ here and nowhere behind."""
