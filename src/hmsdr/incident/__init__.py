"""Declaring, acknowledging, checklists, communications, review."""
