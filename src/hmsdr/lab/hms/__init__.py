"""The hospital management system that is kept alive: five services, an ingress, and the clinics that use them."""

VERSION = "1.0"
"""Of the services, as their image is tagged."""
