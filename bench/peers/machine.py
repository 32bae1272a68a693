"""Rates of this machine that no GRPO step can beat: matrix multiplication and reading memory. Prints JSON.

Measured beside each benchmark, because clouds differ from hour to hour. Each rate is the best of several
repetitions: what the machine can do, not what it did while something else ran.
"""

import argparse
import json
import platform
import time

import torch


def best_seconds(action, seconds):
    """Least time of one repetition, repeated for about `seconds`."""
    action()
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def gemm_rate(dtype, seconds, size=2048):
    """Floating-point operations per second of a product of two square matrices."""
    a = torch.randn(size, size).to(dtype)
    b = torch.randn(size, size).to(dtype)
    out = torch.empty(size, size, dtype=dtype)
    return 2 * size**3 / best_seconds(lambda: torch.mm(a, b, out=out), seconds)


def read_bandwidth(seconds, mebibytes=512):
    """Bytes per second of summing an array far larger than the caches."""
    values = torch.ones(mebibytes * 2**20 // 4)
    return values.numel() * 4 / best_seconds(values.sum, seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2, help="for each of the rates")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "bf16_gemm_flops": gemm_rate(torch.bfloat16, arguments.seconds),
                "fp32_gemm_flops": gemm_rate(torch.float32, arguments.seconds),
                "read_bandwidth_bytes": read_bandwidth(arguments.seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
