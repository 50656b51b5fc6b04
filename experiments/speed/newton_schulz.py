"""Seconds of Muon's Newton-Schulz iteration on the quickstart's matrices: torch's in bfloat16, torch's in fp32, ours.

    python experiments/speed/newton_schulz.py
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python experiments/speed/newton_schulz.py
    python experiments/speed/newton_schulz.py --quick                       # to see that it runs

The second command makes a processor with AVX512 compute like one without. `torch, fp32` is torch's iteration without
its cast. Also printed: whether training would take bfloat16 here, and the time of one product in it over that in fp32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from measure import alternate, keep, machine, markdown, ratio
from torch.optim import _muon
from training_step import captioner_of, configured

from easycap.training.hardware import has_bf16
from easycap.training.muon import orthogonalize
from easycap.training.optim import hidden_matrices

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
BF16, FP32, OURS = "torch, bfloat16", "torch, fp32", "ours"


def torch_in_bf16(matrix: torch.Tensor) -> torch.Tensor:
    return _muon._zeropower_via_newtonschulz(matrix, COEFFICIENTS, 5, 1e-7)


def torch_in_fp32(matrix: torch.Tensor) -> torch.Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def product_in_bf16_over_fp32(clock, size: int = 256) -> float:
    """How many times as long one product takes in bfloat16: below 1 where it is native."""
    single = torch.randn(size, size)
    half = single.bfloat16()
    seconds = alternate({"fp32": lambda: single @ single, "bf16": lambda: half @ half}, rounds=5, clock=clock)
    return ratio(seconds, "fp32", "bf16")["median"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small matrices")
    parser.add_argument("--rounds", type=int, default=15, help="timings of each (%(default)s)")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    captioner = captioner_of(configured(["experiment=easycap/quickstart"], "fp32"), 400)
    matrices = [torch.randn_like(weight).flatten(1) for weight in hidden_matrices(captioner)]
    matrices = matrices[:2] if options.quick else matrices
    seconds = alternate(
        {
            BF16: lambda: [torch_in_bf16(matrix) for matrix in matrices],
            FP32: lambda: [torch_in_fp32(matrix) for matrix in matrices],
            OURS: lambda: orthogonalize(matrices),
        },
        rounds=options.rounds,
        clock=clock,
    )
    expected = [torch_in_fp32(matrix) for matrix in matrices]
    off = max(
        float((a - b).norm() / b.norm()) for a, b in zip(orthogonalize(matrices), expected, strict=True)
    )
    result = {
        "machine": machine() | {"capability": torch.backends.cpu.get_cpu_capability()},
        "clock": options.clock,
        "native_bf16": has_bf16(torch.device("cpu")),
        "product_in_bf16_over_fp32": product_in_bf16_over_fp32(clock),
        "difference_from_fp32": off,
        "matrices": [list(matrix.shape) for matrix in matrices],
        "seconds": seconds,
        "ratio": {name: ratio(seconds, OURS, name) for name in (BF16, FP32)},
    }
    print(markdown([as_text(name, result) for name in seconds]))
    print(
        f"\n{len(matrices)} matrices; bfloat16 taken for native: {result['native_bf16']}, one product in it takes "
        f"{result['product_in_bf16_over_fp32']:.2f} times fp32's; ours off fp32's by {off:.0e}"
    )
    keep(options.out, result)


def as_text(name: str, result: dict) -> dict[str, str]:
    values, times = [1e3 * value for value in result["seconds"][name]], result["ratio"].get(name)
    return {
        "Newton-Schulz": name,
        "ms (range)": f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})",
        "over ours (range)": "{median:.2f} ({low:.2f} to {high:.2f})".format(**times) if times else "",
    }


if __name__ == "__main__":
    main()
