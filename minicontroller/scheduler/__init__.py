"""The scheduler: which node a new pod runs on."""
