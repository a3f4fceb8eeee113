"""The command line: a face only, no decision is made here."""
