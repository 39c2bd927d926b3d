"""ONNX files: as the network answers, in 8 bits nearly so, and smaller."""

import copy
import warnings

import pytest
import torch

import intarsia as ia
from intarsia.compression import export_filters
from intarsia.compression.convolution.exporting import export_onnx, onnx_answers, open_onnx
from intarsia.compression.convolution.networks import accuracy, all_answers
from intarsia.compression.convolution.quantizing import quantize_network
from intarsia.compression.convolution.substituting import factorize_network
from intarsia.data import ImageText
from intarsia.errors import Note
from tests.convolution_help import digits, net, noise, resnet, trained
from tests.failing import fails

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("what", ["plain", "transformers", "coded", "factored"])
def test_a_file_in_float_answers_as_the_network(what, tmp_path):
    pixels = noise(5, 16)
    network = resnet() if what == "transformers" else net()
    if what == "coded":
        quantize_network(network, "ternary")
    if what == "factored":
        network, _ = factorize_network(network, pixels, "fire", 0.5, steps=1)
    before = copy.deepcopy(network.state_dict())
    export_onnx(network, tmp_path / "deep" / "model.onnx", pixels, "float")
    said = onnx_answers(open_onnx(tmp_path / "deep"), pixels)
    assert torch.allclose(said, all_answers(network, pixels), atol=1e-4)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_static_eight_bits_keep_digits_and_take_less_room(tmp_path):
    pixels, _, test, labels = digits()
    network = trained()
    whole = export_onnx(network, tmp_path / "float.onnx", pixels, "float")
    small = export_onnx(network, tmp_path / "static.onnx", pixels)
    said = onnx_answers(open_onnx(small), test)
    assert float((said.argmax(-1) == labels).float().mean()) > accuracy(network, test, labels) - 0.02
    assert not torch.equal(said, onnx_answers(open_onnx(whole), test))
    import onnx

    types = {i.data_type for i in onnx.load(small).graph.initializer if len(i.dims) == 4}
    assert types == {onnx.TensorProto.INT8}
    scales = [i for i in onnx.load(small).graph.initializer if "scale" in i.name and len(i.dims) == 1 and i.dims[0] > 1]
    assert len(scales) >= 8  # a scale a filter


def test_dynamic_eight_bits_come_with_a_warning(tmp_path):
    with pytest.warns(Note, match="slower than float"):
        export_onnx(net(), tmp_path / "dynamic.onnx", noise(), "dynamic")
    fails(lambda: export_onnx(net(), tmp_path / "x.onnx", noise(), "fast"), "static, dynamic or float")
    fails(lambda: export_onnx(net(), tmp_path / "x.onnx", noise().repeat(1, 2, 1, 1)), "does not run on pixels")
    fails(lambda: open_onnx(tmp_path / "none.onnx"), "there is no file")
    assert not (tmp_path / "x.onnx").exists()


def test_an_exported_model_is_saved_with_its_file(tmp_path):
    import transformers as tf
    from PIL import Image

    records = []
    for i in range(8):
        path = tmp_path / f"{i}.png"
        Image.effect_noise((16, 16), 30 * i + 9).convert("RGB").save(path)
        records.append(ImageText(str(path)))
    processor = tf.ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model = ia.wrap(resnet(), processor=processor)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        fast = export_filters(model, train=records)
    facts = fast.extras["compression.export_filters"]
    assert facts["error"] < 0.1 and facts["pictures"] == 8
    fast.save(tmp_path / "model")
    again = ia.load(tmp_path / "model")
    pixels = noise(3, 16)
    assert torch.equal(
        onnx_answers(open_onnx(again.exports["onnx"]), pixels), onnx_answers(open_onnx(fast.exports["onnx"]), pixels)
    )
