"""Where objects live: etcd's model, in SQLite (embedded) or in etcd itself."""
