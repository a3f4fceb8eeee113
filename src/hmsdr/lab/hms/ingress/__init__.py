"""One region's ingress: the way from the public addresses to ready pods."""
