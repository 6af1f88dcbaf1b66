"""Backtests: the production decision code over recorded jobs and intensities, beside baselines and bounds."""
