"""The simulated world and the checkers that stand outside. Nothing in production imports it."""
