"""A two-region hospital on one machine, with real servers. Only drill/ and cli/ import it."""
