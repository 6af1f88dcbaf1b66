"""Short-horizon forecasts of grid carbon intensity with quantiles (layer: pure numpy, imports only the domain)."""
