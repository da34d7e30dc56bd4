"""The controller manager and the scheduler: one process, two identities, the API server's secure port only."""
