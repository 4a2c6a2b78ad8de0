import pytest

from benchmarks import machine

X86 = """processor\t: 0
model name\t: A Processor
flags\t\t: fpu avx2 avx512f avx512_vnni

processor\t: 1
model name\t: A Processor
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (X86, "A Processor: AVX2, AVX-512, VNNI; without VPOPCNTDQ, bfloat16, AMX"),
        (ARM, "NEON, dot product; without int8 matrix products, bfloat16"),
    ],
)
def test_processor_in_words(text, words, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine.processor().endswith(words)


def test_a_processor_of_which_nothing_is_known_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "missing")
    assert machine.processor()


def test_all_libraries_are_held_to_one_instruction_set():
    assert machine.environment(None) == {}
    for kernels in machine.KERNELS:
        assert machine.environment(kernels)["BNN_KERNELS"] == kernels
    assert machine.environment("avx512")["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_FP16"
    caches = {machine.environment(kernels)["TORCHINDUCTOR_CACHE_DIR"] for kernels in machine.KERNELS}
    assert len(caches) == len(machine.KERNELS)
