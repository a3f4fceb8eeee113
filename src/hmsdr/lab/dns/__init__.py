"""The lab's DNS: answers from the Route 53 records that are in sync, with their weights and TTLs."""
