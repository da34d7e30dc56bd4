"""Between the endpoints and storage: how each resource is read and written."""
