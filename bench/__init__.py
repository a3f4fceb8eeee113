"""Benchmarks: ratios measured in one run, alternating, with medians and spread. Never part of the tests."""
