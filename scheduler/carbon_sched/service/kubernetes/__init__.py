"""The controller: takes RayJobs up as jobs, and finds clusters. See clusters/kubernetes/README.md."""
