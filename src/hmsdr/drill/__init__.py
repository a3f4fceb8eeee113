"""Scenarios, schedule, test plans, evidence."""
