"""One thin file for each outside system; vendor errors become ours here. No policy, and none imports another."""
