"""The append-only event log, its folds, and the authority record; one contract for every store."""
