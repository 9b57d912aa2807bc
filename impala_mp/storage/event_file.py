"""TensorBoard's view of a run: scalars, histograms, texts, films and a layout.

The events lie in the run's own folder, so that TensorBoard names the run by it. One
event has all scalars of a record, which takes a tenth of the time of one event each.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.summary.writer import event_file_writer

from impala_mp.storage import histogram as histogram_lib

_FLUSH_SECS = 10
_CLASSES = {
    "scalars": summary_pb2.DATA_CLASS_SCALAR,
    "histograms": summary_pb2.DATA_CLASS_TENSOR,
}
# Charts on the page "Custom Scalars", by section: title, and a pattern of each tag.
_LAYOUT = {
    "Learning": {
        "return": ["episode/return_mean$", "evaluation/return_mean$"],
        "entropy": ["policy/entropy"],
        "explained variance": ["value/explained_variance"],
        "KL": ["vtrace/kl"],
        "gradient norm": ["loss/gradient_norm", "gradient_norm/.*"],
        "the user's numbers": ["env/[^/]+$"],
    },
    "Speed": {
        "agent steps a second": ["throughput/agent_steps_per_sec"],
        "learner's time": ["time/learner_.*"],
        "actors' time": ["time/actor_.*"],
        "policy lag": ["lag/mean", "lag/max"],
    },
}


class EventFile:
    """Writer of one event file. Its errors come with the next call."""

    def __init__(
        self,
        folder: str,
        purge_step: int | None = None,
        describe: Callable[[str], str] = lambda tag: "",
    ) -> None:
        """Opens a new file.

        Args:
          purge_step: TensorBoard drops earlier events from this step on.
          describe: returns the description of a tag, in Markdown.
        """
        self._describe = describe
        self._described: set[str] = set()
        suffix = f".{secrets.token_hex(8)}"  # it would follow a link
        self._writer = event_file_writer.EventFileWriter(
            folder, flush_secs=_FLUSH_SECS, filename_suffix=suffix
        )
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(step=purge_step, session_log=start))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.add_event(event)

    def _add(self, step: int, *values: Any) -> None:
        summary = summary_pb2.Summary(value=values)
        self._write(event_pb2.Event(step=step, summary=summary))

    def add(
        self,
        step: int,
        scalars: Mapping[str, float],
        histograms: Mapping[str, histogram_lib.RawHistogram],
    ) -> None:
        """Adds one record."""
        values = []
        for tag, scalar in scalars.items():
            value = summary_pb2.Summary.Value(tag=tag, simple_value=scalar)
            self._explain(value, tag, "scalars")
            values.append(value)
        for tag, each in histograms.items():
            histogram = summary_pb2.HistogramProto(
                min=each.min,
                max=each.max,
                num=each.num,
                sum=each.sum,
                sum_squares=each.sum_squares,
                bucket_limit=each.bucket_limits,
                bucket=each.bucket_counts,
            )
            value = summary_pb2.Summary.Value(tag=tag, histo=histogram)
            self._explain(value, tag, "histograms")
            values.append(value)
        self._add(step, *values)

    def _explain(self, value: Any, tag: str, plugin: str) -> None:
        """Adds the description of a tag, once."""
        if tag in self._described:
            return
        self._described.add(tag)
        text = self._describe(tag)
        if text:
            value.metadata.display_name = tag
            value.metadata.summary_description = text
            value.metadata.plugin_data.plugin_name = plugin
            # Without it TensorBoard's fast loader drops the description.
            value.metadata.data_class = _CLASSES[plugin]

    def add_text(self, tag: str, text: str) -> None:
        """Adds a text in Markdown."""
        metadata = summary_pb2.SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, string_val=[text.encode()]
        )
        tensor.tensor_shape.dim.add(size=1)
        self._add(
            0, summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        )

    def add_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Adds the page "HParams": numbers, booleans and texts by name."""
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in values.items()
        }
        self._add(0, *hparams_summary.hparams_pb(plain).value)

    def add_layout(self) -> None:
        """Adds the page "Custom Scalars", with the return first."""
        layout = layout_pb2.Layout(
            category=[
                layout_pb2.Category(
                    title=section,
                    chart=[
                        layout_pb2.Chart(
                            title=title,
                            multiline=layout_pb2.MultilineChartContent(tag=tags),
                        )
                        for title, tags in charts.items()
                    ],
                )
                for section, charts in _LAYOUT.items()
            ]
        )
        metadata = summary_pb2.SummaryMetadata()
        metadata.plugin_data.plugin_name = "custom_scalars"
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING, string_val=[layout.SerializeToString()]
        )
        tag = "custom_scalars__config__"  # where the page looks for it
        self._add(
            0, summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        )

    def add_film(self, tag: str, step: int, gif: bytes, size: tuple[int, int]) -> None:
        """Adds an animated GIF of `size` (height, width)."""
        height, width = size
        image = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=gif
        )
        self._add(step, summary_pb2.Summary.Value(tag=tag, image=image))

    def close(self) -> None:
        """Writes what is left. A full disk loses it."""
        with contextlib.suppress(OSError):
            self._writer.close()
