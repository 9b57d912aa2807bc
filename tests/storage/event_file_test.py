"""What TensorBoard gets beside scalars: descriptions, texts, layout, films."""

import io

from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from impala_mp.monitoring import metric_docs
from impala_mp.storage import event_file, histogram


def _read(folder):
    events = event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return events


def test_a_record_is_one_event_with_descriptions(tmp_path):
    events = event_file.EventFile(str(tmp_path), None, metric_docs.describe)
    raw = histogram.RawHistogram(-0.5, 1.5, 3, 1.0, 1.0, [0.5, 1.5], [2, 1])
    for step in (10, 20):
        events.add(step, {"vtrace/kl": 0.5, "unknown": 1.0}, {"lag/histogram": raw})
    events.close()
    found = _read(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("vtrace/kl")] == [
        (10, 0.5),
        (20, 0.5),
    ]
    text = found.SummaryMetadata("vtrace/kl").summary_description
    assert text.startswith("Mean KL(")
    assert "**Healthy:** Below 0.1 nats." in text
    assert "**Turn:** Higher: lower config.optimizer.learning_rate" in text
    assert [h.histogram_value.num for h in found.Histograms("lag/histogram")] == [3]


def test_the_layout_begins_with_the_return(tmp_path):
    events = event_file.EventFile(str(tmp_path))
    events.add_layout()
    events.add_text("config", "| a | b |")
    events.add_hyperparameters({"optimizer.learning_rate": 1e-3, "sizes": [64, 64]})
    events.close()
    found = _read(tmp_path)
    (layout,) = found.Tensors("custom_scalars__config__")
    parsed = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0])
    assert parsed.category[0].chart[0].title == "return"
    assert found.Tensors("config")[0].tensor_proto.string_val == [b"| a | b |"]
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert content.plugin_name == "hparams"
    assert b"optimizer.learning_rate" in content.content


def test_a_film_is_an_animated_picture(tmp_path):
    gif = io.BytesIO()
    frames = [Image.new("RGB", (8, 6), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(gif, format="GIF", save_all=True, append_images=frames[1:])
    events = event_file.EventFile(str(tmp_path))
    events.add_film("film", 7, gif.getvalue(), (6, 8))
    events.close()
    (image,) = _read(tmp_path).Images("film")
    assert (image.step, image.width, image.height) == (7, 8, 6)
    assert Image.open(io.BytesIO(image.encoded_image_string)).n_frames == 2
