"""Bringing a lost region back: what is left of it is looked at, and what only its backups have is restored. It decides nothing."""
