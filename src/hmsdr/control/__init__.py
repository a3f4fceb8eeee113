"""The long-running processes around the pure core: agent and guard."""
