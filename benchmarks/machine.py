"""What a measurement ran on, in words, and how all libraries are held to one instruction set."""

import platform
import tempfile
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# Flags of Linux, x86-64 and aarch64, and what people call them.
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_vpopcntdq": "VPOPCNTDQ",
    "avx512_bf16": "bfloat16",
    "amx_tile": "AMX",
}
_FEATURES_OF_ARM = {"asimd": "NEON", "asimddp": "dot product", "i8mm": "int8 matrix products", "bf16": "bfloat16"}

# `BNN_KERNELS`, and by what the others are held to the same: oneDNN (of torch and TensorFlow), ATen, and MKL. AVX-512
# has bfloat16 and float16 where the processor does, but not AMX.
_HELD_TO: dict[str, dict[str, str]] = {
    "amx": {},
    "avx512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "generic": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "neon": {},
}
KERNELS = tuple(_HELD_TO)
"""The instruction sets that all libraries can be held to."""


def environment(kernels: str | None) -> dict[str, str]:
    """The variables that hold every contestant to an instruction set; None lets each take its best.

    What torch has compiled is kept apart for each set.
    """
    if kernels is None:
        return {}
    compiled = Path(tempfile.gettempdir()) / f"torchinductor-{kernels}"
    return {"BNN_KERNELS": kernels, "TORCHINDUCTOR_CACHE_DIR": str(compiled), **_HELD_TO[kernels]}


def processor() -> str:
    """Its name and what it can, as in "Intel(R) Xeon(R): AVX2, AVX-512, VNNI, VPOPCNTDQ; without bfloat16, AMX"."""
    fields: dict[str, str] = {}
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    known = _FEATURES_OF_ARM if "Features" in fields else _FEATURES
    name = fields.get("model name") or platform.processor() or platform.machine()
    if not flags:
        return name
    there = [word for flag, word in known.items() if flag in flags]
    missing = [word for flag, word in known.items() if flag not in flags]
    return f"{name}: {', '.join(there)}" + (f"; without {', '.join(missing)}" if missing else "")
