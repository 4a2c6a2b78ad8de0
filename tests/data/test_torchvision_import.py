import subprocess
import sys
import warnings

import pytest

from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError

SHADOWED = """
import sys
from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    try:
        import_torchvision_datasets()
    except DataError as error:
        print(error)
"""


def test_torchvision_imports_beside_this_torch_without_a_warning() -> None:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        sets = import_torchvision_datasets()
    assert not raised
    assert import_torchvision_datasets() is sets
    assert sets.CIFAR10.base_folder == "cifar-10-batches-py"


@pytest.mark.slow
def test_bnn_data_does_not_import_torchvision() -> None:
    code = "import sys, bnn.data; bnn.data.digits(); sys.exit('torchvision' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_torchvision_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    with pytest.raises(DataError, match=r'torchvision, which is not installed: pip install "bnn-edge\[data\]"'):
        import_torchvision_datasets()


def test_a_broken_torchvision_is_told_in_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    folders = []
    for statement in ("raise RuntimeError('built for another torch')", "raise ImportError('libcudart.so')"):
        folders.append(tmp_path_factory.mktemp("broken"))
        (folders[-1] / "torchvision.py").write_text(statement)
    command = [sys.executable, "-c", SHADOWED, *map(str, folders)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(told) == 2
    for line, reason in zip(told, ("built for another torch", "libcudart.so"), strict=True):
        assert line.startswith("torchvision does not work beside torch")
        assert reason in line
