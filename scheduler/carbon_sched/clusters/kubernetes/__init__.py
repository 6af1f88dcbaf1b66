"""Kubernetes clusters with KubeRay, behind the port of every other cluster; README.md tells how."""
