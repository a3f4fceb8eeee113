"""Lint of playbooks and frozen plans, apart from what makes them."""
