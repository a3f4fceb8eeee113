"""Backups that are known to restore: making them, keeping them in both regions, trying them out, bringing them back."""
