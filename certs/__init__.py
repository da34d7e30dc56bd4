"""Certificates, keys, tokens, kubeconfigs and SSH keys: files and objects, no network."""
