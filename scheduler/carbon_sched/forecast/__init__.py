"""Short-horizon forecasts of grid carbon intensity with quantiles (layer: pure numpy, imports only the domain).

model      fit zones, store models, forecast one zone from now on: what the service calls
batch      every forecast of a long period at once, refitted as it goes: what backtests call
blend      a provider's forecast and ours together, by what both were worth lately
record     how the last weeks' forecasts did, per zone; skill: the measures; baselines: what ours has to beat
series     hourly history, gaps, a common clock
The rest is inside: trace -> features -> ridge -> learner -> calibration -> predict.
"""
