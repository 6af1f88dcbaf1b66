"""Intensities of zones as a picture (SVG or PNG), by matplotlib of the extra `reports`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import InvalidInput, ServerUnavailable
from carbon_sched.domain.time import from_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo
    from pathlib import Path

    from carbon_sched.wire import IntensityView, ZoneReadings

FORMATS = (".svg", ".png")
SIZE_IN = (9.0, 4.0)
DPI = 120
BAND_ALPHA = 0.2


def check_path(path: Path) -> Path:
    """The path, before anything is asked; InvalidInput where no picture can be written there."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidInput("--chart", path, "has no known ending", "Name a file that ends in .svg or .png")
    if not path.absolute().parent.is_dir():
        raise InvalidInput("--chart", path, "lies in a folder that does not exist", "Make the folder first")
    if find_spec("matplotlib") is None:
        remedy = "Run: pip install 'carbon-sched[reports]'"
        raise InvalidInput("--chart", path, "needs matplotlib, which is not installed", remedy)
    return path


def write_chart(path: Path, zones: Sequence[ZoneReadings], now: datetime, local: tzinfo) -> None:
    """One line per zone, its band where values are uncertain, and a mark at `now`; times in `local`."""
    import matplotlib as mpl
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained")
    axes: Any = figure.subplots()
    for zone in zones:
        _line(axes, zone["zone"], zone["readings"])
    axes.axvline(now, color="0.5", linewidth=0.8, linestyle=":")
    axes.set_ylabel("g CO2e / kWh")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    locator = AutoDateLocator(tz=local)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=local))
    axes.legend(loc="best", frameon=False)
    figure.supxlabel(_credits(zones), x=0.01, ha="left", fontsize=6, color="0.4")
    # text stays text, and the same data give the same file
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "carbon-sched"}):
        try:
            metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
            figure.savefig(path, dpi=DPI, metadata=metadata)
        except OSError as error:
            raise ServerUnavailable(f"{path} cannot be written ({error.strerror})") from None


def _line(axes: Any, name: str, readings: Sequence[IntensityView]) -> None:
    times = [from_rfc3339(view["start"]) for view in readings] + [from_rfc3339(readings[-1]["end"])]
    means, lows, highs = (
        [float(view["g_per_kwh"] if view[key] is None else view[key] or 0.0) for view in readings]
        for key in ("g_per_kwh", "low_g_per_kwh", "high_g_per_kwh")
    )
    (drawn,) = axes.step(times, [*means, means[-1]], where="post", label=name, linewidth=1.4)
    axes.fill_between(
        times,
        [*lows, lows[-1]],
        [*highs, highs[-1]],
        step="post",
        alpha=BAND_ALPHA,
        color=drawn.get_color(),
        linewidth=0,
    )


def _credits(zones: Sequence[ZoneReadings]) -> str:
    """Who says so, as licences ask for; what we made of it stands under the licence of what it was made from."""
    readings = [view for zone in zones for view in zone["readings"]]
    return "; ".join(dict.fromkeys(f"{view['provider']}: {view['licence']}" for view in readings if view["licence"]))
