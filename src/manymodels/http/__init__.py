"""HTTP: the container API and the endpoint API on one port."""
