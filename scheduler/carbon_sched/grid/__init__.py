"""Grid carbon intensity: providers over HTTP, series files, yearly averages, and the chain through them."""
