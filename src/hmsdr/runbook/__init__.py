"""Steps, their catalogue, and the runner that executes a frozen plan durably."""
