"""Which precision the network runs in; all other arithmetic is float32."""

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["bf16-mixed", "32-true"]


def native_precision() -> Precision:
    """``bf16-mixed`` where the machine multiplies bf16 natively (CUDA, or a CPU that says so), otherwise ``32-true``."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "bf16-mixed" if "avx512_bf16" in flags or "amx_bf16" in flags else "32-true"


def precision_of(setting: str) -> Precision:
    """What ``training.precision`` means on this machine."""
    if setting == "auto":
        return native_precision()
    return "bf16-mixed" if setting == "bf16-mixed" else "32-true"
