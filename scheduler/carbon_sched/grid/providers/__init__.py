"""One small module per intensity provider; each turns documented answers into readings and nothing else."""
