"""Incidents: what people have to see to, and what has been seen to. So far: the checklists of a failover."""
