"""The simulated Kubernetes cluster."""
