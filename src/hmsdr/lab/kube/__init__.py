"""A region's Kubernetes in the lab: an API that real kubectl talks to, controllers, and pods that are processes."""
