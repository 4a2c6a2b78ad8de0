"""`bnn zoo`."""

import pytest
import torch

from bnn.models.zoo import RELEASED, weights_file

pytest.importorskip("h5py", reason="files of Keras need h5py, an optional dependency")


def test_list_names_every_network_and_its_file(bnn):
    code, output, _ = bnn("zoo", "list")
    assert code == 0
    for name, released in RELEASED.items():
        assert name in output
        assert released.url in output.replace("\n", "")


def test_import_verify_and_predict(bnn, tmp_path):
    from tests.models.zoo.keras_files import NAME, write

    path = write(tmp_path / "weights.h5")
    code, output, _ = bnn("zoo", "import", NAME, str(path), "-o", "model.safetensors")
    assert code == 0
    assert "is not the file that larq-zoo has published: its SHA-256 is" in output
    code, output, _ = bnn("zoo", "verify", NAME, "model.safetensors")
    assert code == 0
    assert "5,150,504 parameters, 4,202,496 of them binary weights" in output
    assert "that is none of larq-zoo's" in output
    assert "logits of larq-zoo's BinaryDenseNet28" in output
    code, _, _ = bnn("zoo", "import", NAME, str(path), "-o", "model.bnnz")
    assert code == 0
    import bnn as package

    model = package.load("model.bnnz")
    assert model.about["zoo"] == NAME
    x = torch.zeros(1, 3, 224, 224)
    with torch.inference_mode():
        expected = weights_file.load("model.safetensors", NAME).model.eval()(x)
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("import", "quicknt", "x.h5", "-o", "x.bnnz"),
            "there is no network of the zoo 'quicknt', but there is 'quicknet'",
        ),
        (("import", "quicknet", "x.h5", "-o", "x.pt"), "neither .safetensors, to train, nor .bnnz, to predict"),
        (("import", "quicknet", "x.h5", "-o", "x.bnnz"), "x.h5 cannot be read: No such file"),
        (("verify", "quicknet", "x.safetensors"), "x.safetensors cannot be read as safetensors"),
    ],
)
def test_errors_are_one_line(words, message, bnn):
    code, _, errors = bnn("zoo", *words)
    assert code in (1, 2)
    assert message in errors
    assert errors.count("\n") == 1
